"""The networks in PyTorch, with the parameter names of the authors' classes, for comparison only.

Their state dicts match those of the RWP, AWP and robust_overfitting repositories and, with `sub_block1`,
those of TRADES and RST. Written for benchmarks and tests.
"""

import re

import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Pre-activation block; `shortcut` is the name of its 1x1 convolution, "" if it has none."""

    def __init__(self, inputs, outputs, stride, shortcut):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.project = shortcut
        if shortcut:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            wrap = nn.Sequential if shortcut == "shortcut" else lambda module: module
            self.add_module(shortcut, wrap(projection))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        x = self.get_submodule(self.project)(out) if self.project else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + x


class Network(nn.Module):
    """`preactresnet18` or `wrn-D-W` for normalised images [B, channels, H, W]."""

    def __init__(
        self, name: str, num_classes: int = 10, channels: int = 3, sub_block1: bool = False
    ):
        super().__init__()
        wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
        if wide:
            depth, width = map(int, wide.groups())
            stages = [(16 * width, 1), (32 * width, 2), (64 * width, 2)]
            blocks, features = (depth - 4) // 6, 16
        else:
            stages, blocks, features = [(64, 1), (128, 2), (256, 2), (512, 2)], 2, 64

        self.conv1 = nn.Conv2d(channels, features, 3, 1, 1, bias=False)
        self.path = []
        for i, (outputs, stride) in enumerate(stages, 1):
            before, features = features, outputs
            make = lambda wide=wide, before=before, outputs=outputs, stride=stride: nn.Sequential(
                *(self._block(wide, before, outputs, stride, j) for j in range(blocks))
            )
            self.path.append(f"block{i}" if wide else f"layer{i}")
            self.add_module(self.path[-1], _Named(make()) if wide else make())
            if sub_block1 and i == 1:
                self.sub_block1 = _Named(make())  # never used
        self.head = ("bn1", "fc") if wide else ("bn", "linear")
        self.add_module(self.head[0], nn.BatchNorm2d(features))
        self.add_module(self.head[1], nn.Linear(features, num_classes))

    @staticmethod
    def _block(wide, inputs, outputs, stride, index):
        if index:
            return Block(outputs, outputs, 1, "")
        if wide:
            return Block(inputs, outputs, stride, "convShortcut" if inputs != outputs else "")
        return Block(
            inputs, outputs, stride, "shortcut" if stride != 1 or inputs != outputs else ""
        )

    def forward(self, x):
        x = self.conv1(x)
        for name in self.path:
            x = self.get_submodule(name)(x)
        norm, linear = map(self.get_submodule, self.head)
        return linear(F.relu(norm(x)).mean((2, 3)))


class _Named(nn.Module):
    """Blocks under the name `layer`."""

    def __init__(self, blocks: nn.Sequential):
        super().__init__()
        self.layer = blocks

    def forward(self, x):
        return self.layer(x)
