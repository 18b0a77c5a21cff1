"""The scales at which the paper's experiments can be reproduced."""

from typing import Any, NamedTuple


class Scale(NamedTuple):
    """Data sets, networks and parameter values of all experiments at one scale.

    Attributes:
      described: data sets and networks in words.
      prefix: prefix of the configs of the figures and Table 2.
      threats: threat models of Table 1.
      datasets: maps the prefix of the configs of each data set of Table 1 to its `config.data.name`.
      changes: changes to the config of every run at this scale.
      table2: further changes to the configs of Table 2's runs.
      table2_at: config of Table 2's AT runs.
      wide: network of these runs, "" for that of the config.
      lsc_ranges: loss ranges of Figure 1(c), [low, high). The paper's text gives no bounds; these are ours.
      c_mins: values of c_min in Figure 2(a); all but 1.7 are ours.
      k2s: values of K2 in Figure 2(b).
    """

    described: str
    prefix: str
    threats: tuple[str, ...]
    datasets: dict[str, str]
    changes: dict[str, Any]
    table2: dict[str, Any]
    table2_at: str
    wide: str
    lsc_ranges: tuple[tuple[float, float], ...]
    c_mins: tuple[float, ...]
    k2s: tuple[int, ...]


_INF = float("inf")
SCALES = {
    "digits": Scale(
        described="scikit-learn's 8x8 digits",
        prefix="digits",
        threats=("l_inf", "l_2"),
        datasets={"digits": "digits"},
        changes={},
        table2={"data.validation_examples": 144},  # a tenth of the training set
        table2_at="digits_at:full",  # like TRADES and RST, not on a hundred images
        wide="",
        lsc_ranges=((0.0, 0.2), (0.2, 0.5), (0.5, 1.0), (1.0, 1.7), (1.7, _INF)),
        c_mins=(0.2, 0.4, 0.7, 1.0, 1.3, 1.7, 2.2),
        k2s=(1, 2, 3, 5, 7, 10),
    ),
    "cifar10": Scale(
        described="the paper's data sets and networks",
        prefix="cifar10",
        threats=("l_inf", "l_2"),
        datasets={"svhn": "svhn_cropped", "cifar10": "cifar10", "cifar100": "cifar100"},
        changes={},
        table2={},
        table2_at="cifar10_at",
        wide="wrn-34-10",
        lsc_ranges=((0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 2.5), (2.5, _INF)),
        c_mins=(0.5, 1.0, 1.3, 1.5, 1.7, 1.9, 2.1, 2.4),
        k2s=tuple(range(1, 11)),
    ),
}
# A fifth of the paper's epochs, so that a run takes minutes on an H100 (docs/reproduce.md).
SCALES["short"] = SCALES["cifar10"]._replace(
    described="CIFAR-10, PreActResNet-18, 40 epochs in bfloat16",
    threats=("l_inf",),
    datasets={"cifar10": "cifar10"},
    changes={"epochs": 40, "dtype": "bfloat16", "evaluation.every": 4},
    wide="",
)
