"""Describes the setting that runs have in common, for titles of pictures."""

from collections.abc import Collection, Sequence

from rwp_jax.report.results import Result

DATASETS = {
    "digits": "digits",
    "npz": "images of a file",
    "svhn_cropped": "SVHN",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
_NETWORKS = {"preactresnet18": "PreActResNet-18", "dm-preactresnet18": "DM-PreActResNet-18"}
NORMS = {"l_inf": "L∞", "l_2": "L2", "l_1": "L1"}


def radius(epsilon: float) -> str:
    """Formats a radius, such as 0.3 or 8/255."""
    text, pixels = f"{epsilon:.4g}", 255 * epsilon
    if float(text) != epsilon and abs(pixels - round(pixels)) < 1e-6:
        text = f"{round(pixels)}/255"
    return f"ε = {text}"


def _threat(threat) -> str:
    return f"{NORMS.get(threat.norm, threat.norm)} {radius(threat.epsilon)}"


def images(config) -> str:
    """Names the data set of a run, with the number of images or labels if it does not use all."""
    data = config.data
    name = DATASETS.get(data.name, data.name)
    held_out = data.get("validation_examples", 0)
    kept = data.get("train_examples", 0)
    words = [f"{kept - held_out:,} train"] if kept else []
    if data.get("labeled_examples", 0):
        words.append(f"{data.labeled_examples:,} labels")
    return f"{name} ({', '.join(words)})" if words else name


def network(config) -> str:
    """Names the network of a run."""
    name = config.model.name
    return _NETWORKS.get(name, name.upper())


def words(config, epochs: int) -> list[str]:
    """Describes data, network, threat model and, if not 0, epochs of a run, one string each."""
    told = [images(config), network(config), _threat(config.threat)]
    return [*told, f"{epochs} epochs"] if epochs else told


def setting(results: Sequence[Result], counts: Collection[int] = ()) -> str:
    """Describes the data, network, threat model and epochs that runs have in common.

    Args:
      results: results of the runs.
      counts: numbers of seeds in the groups of runs, which are appended.
    """
    told = [words(result.config, len(result.epochs)) for result in results]
    common = [part[0] for part in zip(*told, strict=False) if len(set(part)) == 1]
    if counts:
        few, many = min(counts), max(counts)
        common.append(f"{few if few == many else f'{few} to {many}'} seed{'s' * (many != 1)}")
    return ", ".join(common)
