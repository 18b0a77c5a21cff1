"""PyTorch training steps that do the same work as the authors' code, for comparison only.

As in their scripts, AT computes parameter gradients during the attack and scores its result with one more
forward pass, TRADES recomputes the clean logits in every attack step and twice in every loss, and both
always take K2 perturbation steps. Written for this benchmark. `fast` adds what PyTorch offers: bfloat16
autocast, channels last and torch.compile.
"""

import torch
import torch.nn.functional as F

from benchmarks.recipe import BETA, EPSILON, GAMMA, K1, K2, MEAN, STD, STEP_SIZE
from benchmarks.torch_networks import Network


class AtStep:
    """One AT-RWP step like the authors' on [B, 3, H, W] images in [0, 1] (L_inf).

    Like theirs, it keeps two copies of the network, reloaded for every ascent step: one at w + v, and one
    that takes an SGD step from there. Their difference is the direction.
    """

    def __init__(self, name, c_min, device="cpu", fast=False):
        networks = [Network(name).to(device) for _ in range(3)]
        self.device, self.fast = device, fast
        self.calls = {network: torch.compile(network) if fast else network for network in networks}
        if fast:
            for network in networks:
                network.to(memory_format=torch.channels_last)
        self.model, self.before, self.after = networks
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self.ascent = torch.optim.SGD(self.after.parameters(), lr=0.01)
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
        self.c_min = c_min

    def logits(self, network, x):
        if not self.fast:
            return network(x)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16):
            return self.calls[network](x).float()

    def normalize(self, x):
        return (x - self.mean) / self.std

    def attack(self, x, y):
        delta = torch.empty_like(x).uniform_(-EPSILON, EPSILON)
        delta = torch.clamp(x + delta, 0, 1) - x
        for _ in range(K1):
            delta.requires_grad_()
            F.cross_entropy(self.logits(self.model, self.normalize(x + delta)), y).backward()
            with torch.no_grad():
                moved = delta + STEP_SIZE * delta.grad.sign()
                delta = torch.clamp(x + moved.clamp(-EPSILON, EPSILON), 0, 1) - x
        logits = self.logits(self.model, self.normalize(x + delta))
        F.cross_entropy(logits, y, reduction="none")  # the authors' code scores its result
        return x + delta.detach()

    def losses(self, network, x, x_adv, y):
        return F.cross_entropy(self.logits(network, x_adv), y, reduction="none")

    def perturbation(self, x, x_adv, y):
        kernels = [n for n, p in self.model.named_parameters() if p.ndim > 1]
        weights = dict(self.model.named_parameters())
        raw = {n: torch.zeros_like(weights[n]) for n in kernels}
        v = raw
        for _ in range(K2):
            for proxy in (self.before, self.after):
                proxy.load_state_dict(self.model.state_dict())
                add(proxy, v, 1)
            loss = self.losses(self.after, x, x_adv, y)
            self.ascent.zero_grad()
            (-(loss * (loss < self.c_min)).mean()).backward()
            self.ascent.step()
            before, after = self.before.state_dict(), self.after.state_dict()
            with torch.no_grad():
                raw = {n: raw[n] + (after[n] - before[n]) for n in kernels}
                norm = torch.cat([weights[n].flatten() for n in kernels]).norm()
                total = torch.cat([raw[n].flatten() for n in kernels]).norm() + 1e-20
                v = {n: GAMMA * norm / total * raw[n] for n in kernels}
        return v

    def __call__(self, x, y):
        x_adv = self.normalize(self.attack(x, y))
        x = self.normalize(x)
        self.model.train()
        v = self.perturbation(x, x_adv, y)
        add(self.model, v, 1)
        loss = self.losses(self.model, x, x_adv, y).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        add(self.model, v, -1)
        return loss.item()


class TradesStep(AtStep):
    """The same for TRADES, with the KL summed over classes, without which the authors' step fails."""

    def attack(self, x, y):
        self.model.eval()
        x_adv = x + 0.001 * torch.randn_like(x)
        for _ in range(K1):
            x_adv.requires_grad_()
            loss = self.divergence(self.model, self.normalize(x), self.normalize(x_adv)).sum()
            gradient = torch.autograd.grad(loss, [x_adv])[0]
            x_adv = x_adv.detach() + STEP_SIZE * gradient.sign()
            x_adv = torch.clamp(torch.min(torch.max(x_adv, x - EPSILON), x + EPSILON), 0, 1)
        return x_adv

    def divergence(self, network, x, x_adv):
        log_q = F.log_softmax(self.logits(network, x_adv), dim=1)
        return F.kl_div(log_q, F.softmax(self.logits(network, x), dim=1), reduction="none").sum(1)

    def losses(self, network, x, x_adv, y):
        robust = self.divergence(network, x, x_adv)
        return F.cross_entropy(self.logits(network, x), y, reduction="none") + BETA * robust


STEPS = {"at": AtStep, "trades": TradesStep}


def add(model, v, sign):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in v:
                parameter.add_(v[name], alpha=sign)
