"""Networks that resemble those of this package but compute something else, by names in their state dicts.

The classes are those of RobustBench's model zoo for CIFAR-10 and CIFAR-100.
"""

import re
from collections.abc import Callable, Collection

_has = lambda pattern: lambda names: any(re.fullmatch(pattern, name) for name in names)
_preactivated = _has(r"layer1\.0\.bn2\.weight")
_bn = _has(r"bn\.weight")
_first_bn = _has(r"bn1\.weight")
_RELATIVES: tuple[tuple[Callable[[Collection[str]], bool], str], ...] = (
    (
        _has(r"stem_conv\.weight"),
        "a RobustWideResNet, whose stages have widths of their own",
    ),
    (
        lambda names: _preactivated(names) and _first_bn(names),
        "a ResNet that activates after its convolutions, not before",
    ),
    (
        lambda names: _preactivated(names) and not _bn(names),
        "a PreActResNet without BatchNorm before the last layer, whose shortcuts skip the activation "
        "(Andriushchenko2020, Wong2020)",
    ),
    (
        lambda names: "block1.layer.0.conv2.weight" in names and "fc.bias" not in names,
        "a WideResNet whose last layer has no bias (Pang2020 also normalises features and weights)",
    ),
)


def relative(names: Collection[str]) -> str:
    """Returns what network with these names, without prefix, it is, and what differs from ours; "" else."""
    return next((what for fits, what in _RELATIVES if fits(names)), "")
