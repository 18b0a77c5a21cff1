"""The networks of Gowal et al. (2020) in PyTorch, for comparison only, named as in RobustBench's classes.

Normalisation is left out, as it has no entries in their state dicts. Written for tests.
"""

import re

import torch.nn.functional as F
from torch import nn


def convolution(inputs, outputs, size=3, stride=1):
    """Returns a convolution without bias that pads as TensorFlow's SAME does for even sizes."""
    zeros = max(size - stride, 0)
    before, behind = zeros // 2, zeros - zeros // 2
    unpadded = nn.Conv2d(inputs, outputs, size, stride, bias=False)
    unpadded.register_forward_pre_hook(
        lambda module, given: (F.pad(given[0], (before, behind, before, behind)),)
    )
    return unpadded


class Block(nn.Module):
    """Pre-activation block; `names` are those of its convolutions."""

    def __init__(self, inputs, outputs, stride, activation, names, raw_shortcut):
        super().__init__()
        self.activation, self.names, self.raw_shortcut = activation, names, raw_shortcut
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.add_module(names[0], convolution(inputs, outputs, 3, stride))
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.add_module(names[1], convolution(outputs, outputs))
        self.changes = stride != 1 or inputs != outputs
        if self.changes:
            self.shortcut = convolution(inputs, outputs, 3 if raw_shortcut else 1, stride)

    def forward(self, x):
        first, second = map(self.get_submodule, self.names)
        out = self.activation(self.batchnorm_0(x))
        if self.changes:
            x = self.shortcut(x if self.raw_shortcut else out)
        return x + second(self.activation(self.batchnorm_1(first(out))))


class Network(nn.Module):
    """`dm-preactresnet18` or `dm-wrn-D-W` for normalised images [B, channels, H, W]."""

    def __init__(self, name: str, num_classes: int = 10, channels: int = 3, activation=F.silu):
        super().__init__()
        self.activation = activation
        wide = re.fullmatch(r"dm-wrn-(\d+)-(\d+)", name)
        if wide:
            depth, width = map(int, wide.groups())
            stages = [(16 * width, 1), (32 * width, 2), (64 * width, 2)]
            count, features = (depth - 4) // 6, 16
            stem, convolutions = "init_conv", ("conv_0", "conv_1")
        else:
            stages, count, features = [(64, 1), (128, 2), (256, 2), (512, 2)], 2, 64
            stem, convolutions = "conv_2d", ("conv_2d_1", "conv_2d_2")
        self.add_module(stem, convolution(channels, features))
        self.path = [stem]
        groups = []
        for outputs, stride in stages:
            blocks = []
            for j in range(count):
                stride = 1 if j else stride
                blocks.append(Block(features, outputs, stride, activation, convolutions, not wide))
                features = outputs
            groups.append(nn.Sequential(*blocks))
        if wide:
            self.layer = nn.Sequential(*(nn.Sequential() for _ in groups))
            for group, blocks in zip(self.layer, groups, strict=True):
                group.add_module("block", blocks)
            self.path.append("layer")
        else:
            for i, blocks in enumerate(groups):
                self.add_module(f"layer_{i}", blocks)
                self.path.append(f"layer_{i}")
        self.batchnorm = nn.BatchNorm2d(features)
        self.logits = nn.Linear(features, num_classes)

    def forward(self, x):
        for name in self.path:
            x = self.get_submodule(name)(x)
        return self.logits(self.activation(self.batchnorm(x)).mean((2, 3)))
