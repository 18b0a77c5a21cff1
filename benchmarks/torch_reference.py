"""PyTorch networks and a training step that does the work of the authors' code, for comparison only.

The step computes parameter gradients during the attack, scores the attack's result by one more forward
and always takes K2 perturbation steps, as their scripts do. Written for this benchmark.
"""

import re

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.recipe import MEAN, STD


class Block(nn.Module):
    """Pre-activation block; `always_project` adds the shortcut convolution for a stride alone too."""

    def __init__(self, inputs, outputs, stride, always_project):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        project = inputs != outputs or (always_project and stride != 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

    def forward(self, x):
        out = F.relu(self.bn1(x))
        x = self.shortcut(out) if self.shortcut else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + x


def make_network(name: str, num_classes: int = 10) -> nn.Module:
    """`preactresnet18` or `wrn-D-W` for [B, 3, H, W] images."""
    if name == "preactresnet18":
        stages, blocks, features = [(64, 1), (128, 2), (256, 2), (512, 2)], 2, 64
    else:
        depth, width = map(int, re.fullmatch(r"wrn-(\d+)-(\d+)", name).groups())
        stages = [(16 * width, 1), (32 * width, 2), (64 * width, 2)]
        blocks, features = (depth - 4) // 6, 16
    layers = [nn.Conv2d(3, features, 3, 1, 1, bias=False)]
    for outputs, stride in stages:
        for index in range(blocks):
            first = index == 0
            layers.append(
                Block(features, outputs, stride if first else 1, name == "preactresnet18")
            )
            features = outputs
    head = [nn.BatchNorm2d(features), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(features, num_classes))


class TorchStep:
    """One AT-RWP step of the authors' kind on [B, 3, H, W] images in [0, 1] (L_inf).

    Like theirs it keeps two copies of the network, loaded anew for every ascent step: one at w + v, one
    that takes an SGD step from there; their difference is the direction.
    """

    def __init__(self, name, epsilon, step_size, attack_steps, gamma, c_min, perturbation_steps):
        self.model, self.before, self.after = (make_network(name) for _ in range(3))
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self.ascent = torch.optim.SGD(self.after.parameters(), lr=0.01)
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        self.epsilon, self.step_size, self.attack_steps = epsilon, step_size, attack_steps
        self.gamma, self.c_min, self.perturbation_steps = gamma, c_min, perturbation_steps

    def normalize(self, x):
        return (x - self.mean) / self.std

    def attack(self, x, y):
        delta = torch.empty_like(x).uniform_(-self.epsilon, self.epsilon)
        delta = torch.clamp(x + delta, 0, 1) - x
        for _ in range(self.attack_steps):
            delta.requires_grad_()
            F.cross_entropy(self.model(self.normalize(x + delta)), y).backward()
            with torch.no_grad():
                moved = delta + self.step_size * delta.grad.sign()
                delta = torch.clamp(x + moved.clamp(-self.epsilon, self.epsilon), 0, 1) - x
        F.cross_entropy(self.model(self.normalize(x + delta)), y, reduction="none")  # its score
        return delta.detach()

    def perturbation(self, x_adv, y):
        kernels = [n for n, p in self.model.named_parameters() if p.ndim > 1]
        weights = dict(self.model.named_parameters())
        raw = {n: torch.zeros_like(weights[n]) for n in kernels}
        v = raw
        for _ in range(self.perturbation_steps):
            for proxy in (self.before, self.after):
                proxy.load_state_dict(self.model.state_dict())
                add(proxy, v, 1)
            loss = F.cross_entropy(self.after(x_adv), y, reduction="none")
            self.ascent.zero_grad()
            (-(loss * (loss < self.c_min)).mean()).backward()
            self.ascent.step()
            before, after = self.before.state_dict(), self.after.state_dict()
            with torch.no_grad():
                raw = {n: raw[n] + (after[n] - before[n]) for n in kernels}
                norm = torch.cat([weights[n].flatten() for n in kernels]).norm()
                total = torch.cat([raw[n].flatten() for n in kernels]).norm() + 1e-20
                v = {n: self.gamma * norm / total * raw[n] for n in kernels}
        return v

    def __call__(self, x, y):
        x_adv = self.normalize(x + self.attack(x, y))
        v = self.perturbation(x_adv, y)
        add(self.model, v, 1)
        loss = F.cross_entropy(self.model(x_adv), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        add(self.model, v, -1)
        return loss.item()


def add(model, v, sign):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in v:
                parameter.add_(v[name], alpha=sign)
