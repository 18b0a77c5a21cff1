"""The network that a run trained, from its directory or the zoo."""

import dataclasses
import functools
import json
import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from rwp_jax.data import sources
from rwp_jax.data.order import padded_batches
from rwp_jax.distributed import devices
from rwp_jax.errors import InputError, RunWarning, check_path, first_line, named_in
from rwp_jax.models.classifier import Classifier, make_classifier
from rwp_jax.models.fingerprint import fingerprint
from rwp_jax.models.precision import require_x64
from rwp_jax.runs import layout, zoo
from rwp_jax.runs.checkpoint import DIRECTORY, Checkpoints
from rwp_jax.runs.config import completed
from rwp_jax.runs.network_record import (
    NetworkRecord,
    check_shapes,
    read_network_record,
    record_of_params,
    require_model,
)
from rwp_jax.runs.resume_point import WHICH

_PREDICTED_PER_DEVICE = 256


@dataclasses.dataclass(frozen=True, repr=False)
class FinishedRun:
    """A trained network.

    Attributes:
      config: of the run.
      epoch: after which the checkpoint was saved, counted from 0.
      classifier: the network's functions.
      params: its parameters, on all devices of this host.
      batch_stats: its running statistics, likewise.
      image_shape: (H, W, C) of the images that it takes; H and W are 0 where they are not known.
      num_classes: that it tells apart.
      saved: what the checkpoint holds, nested dicts of NumPy arrays: the training state of a run, the
        network alone of the zoo.
      code: digest of what a network of the user's own computes; empty for the package's own.
      test_images: of the run's data set, uint8 [N, H, W, C], read when first asked for.
      test_labels: theirs, int32 [N].
    """

    config: ml_collections.ConfigDict
    epoch: int
    classifier: Classifier
    params: Any
    batch_stats: Any
    image_shape: tuple[int, int, int]
    num_classes: int
    saved: dict[str, Any]
    code: str = ""

    def __repr__(self) -> str:
        """In a line, without the weights."""
        sizes = "x".join(str(size or "?") for size in self.image_shape)
        return (
            f"FinishedRun({self.config.model.name!r}, {self.num_classes} classes, images {sizes}, epoch "
            f"{self.epoch})"
        )

    def predict(self, images) -> np.ndarray:
        """Logits of images, by the running statistics and at the highest precision of the device.

        Args:
          images: uint8 [N, H, W, C], or floating-point in [0, 1].

        Returns:
          [N, num_classes], float32 (float64 for a run in float64).

        Raises:
          InputError: for images of another kind or shape, or pixels out of range.
        """
        images = self._checked(images)
        batch_size = _PREDICTED_PER_DEVICE * jax.local_device_count()
        logits = [np.zeros((0, self.num_classes), jax.tree.leaves(self.params)[0].dtype)]
        with jax.default_matmul_precision("highest"):
            for indices, mask in padded_batches(len(images), batch_size):
                batch = self._logits(self.params, self.batch_stats, images[indices])
                logits.append(np.asarray(batch)[mask])
        return np.concatenate(logits)

    def _checked(self, images) -> np.ndarray:
        """The images as an array, unless they are not what the network takes."""
        if isinstance(images, jax.core.Tracer):
            raise InputError("images= are traced: predict runs outside of jax.jit and jax.vmap")
        try:
            images = np.asarray(images)
        except ValueError:
            raise InputError("images= must be an array: their lists have unequal lengths") from None
        floating = jnp.issubdtype(images.dtype, jnp.floating)  # bfloat16 is no float of NumPy
        if not floating and images.dtype != np.uint8:
            raise InputError(
                f"images= are {images.dtype}, must be uint8, or floating-point in [0, 1]"
            )
        known, shape = self.image_shape, images.shape[1:]
        fits = len(shape) == 3 and shape[2] == known[2] and known[:2] in ((0, 0), shape[:2])
        if not fits:
            sizes = [str(size or name) for name, size in zip("HWC", known, strict=True)]
            raise InputError(f"images= have shape {images.shape}, must be [N, {', '.join(sizes)}]")
        if floating and np.isnan(images).any():
            raise InputError("images= must have pixels in [0, 1], some are NaN")
        if floating and not ((images >= 0) & (images <= 1)).all():
            raise InputError("images= have pixels outside [0, 1]: give uint8, or divide by 255")
        return images

    @functools.cached_property
    def _logits(self) -> devices.Mapped:
        def logits(params, batch_stats, x):
            dtype = jax.tree.leaves(params)[0].dtype
            scale = 255 if x.dtype == jnp.uint8 else 1
            return self.classifier.eval(params, batch_stats, x.astype(dtype) / scale)

        return devices.over_examples(logits, (False, False, True))

    @functools.cached_property
    def _data(self) -> sources.Dataset:
        return sources.load(**self.config.data.to_dict())

    @property
    def test_images(self) -> np.ndarray:
        return self._data.x_test

    @property
    def test_labels(self) -> np.ndarray:
        return self._data.y_test


def read_config(directory: pathlib.Path) -> ml_collections.ConfigDict:
    """Reads the config of a run; raises InputError where the directory holds none."""
    zoo.refuse(directory)
    path = directory / layout.CONFIG
    if not path.is_file():
        raise InputError(f"workdir={directory} holds no run: {_lacking(directory)}")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"workdir={directory} holds no run: its {layout.CONFIG} cannot be read ({first_line(error)})"
        ) from None
    try:
        config = ml_collections.ConfigDict(completed(content))
        _ = config.dtype, config.model.name, config.model.mean, config.model.std
        _ = config.seed, config.parallel, config.data.name
        _ = config.threat.norm
        numbers = config.evaluation.batch_size, config.evaluation.step_size, config.threat.epsilon
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError
        return config
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"workdir={directory} holds no run: in its {layout.CONFIG} a key is missing or of another type "
            f"({first_line(error)})"
        ) from None


def _lacking(directory: pathlib.Path) -> str:
    """Why a directory without a config is none of a run."""
    if not directory.exists():
        return "there is nothing of that name"
    if not directory.is_dir():
        return "it is a file, not a run's directory"
    if (directory / "runs").is_dir():
        return f"there is no {layout.CONFIG} in it; runs of --mode=reproduce are in {directory / 'runs'}"
    return f"there is no {layout.CONFIG} in it"


def config_of(workdir: pathlib.Path | str) -> ml_collections.ConfigDict:
    """The config of what `load_run` takes, a run's directory or a network of the zoo."""
    if str(workdir).startswith(zoo.PREFIX):
        return ml_collections.ConfigDict(completed(zoo.read_card(str(workdir)).config))
    return read_config(pathlib.Path(workdir))


def _check_summary(directory: pathlib.Path, which: str, record: dict, damages: list[str]) -> None:
    """Raises InputError where the run, finished, chose a checkpoint that is not there any more."""
    try:
        epoch = json.loads((directory / layout.SUMMARY).read_text())[which]["epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if epoch != record["epoch"]:
        why = f" ({damages[0]})" if damages else ""
        raise InputError(
            f"checkpoint={which} of {directory} was after epoch {epoch + 1} and is lost{why}: the "
            "training command makes it again from the one before"
        )


def _warn(message: str, calls: int) -> None:
    """Warns at the line that called load_run, so many calls above."""
    warnings.warn(message, RunWarning, stacklevel=calls + 2)


def load_run(workdir: pathlib.Path | str, checkpoint: str | None = None) -> FinishedRun:
    """Loads a checkpoint of a run, finished or not, or a network of the zoo.

    Predictions are in float32, in float64 where the run was. A network that a module of the user's
    registered is looked for in that module.

    Args:
      workdir: directory of the run; or `zoo:NAME`, which has the one checkpoint that its card names.
      checkpoint: `best` (of a run the default), `last` or `best_by_validation`; of averaged weights
        `best_ema` or `last_ema`.

    Raises:
      InputError: where the directory holds no run, or the run or the zoo no such checkpoint; for a name
        that is not in the zoo; for a run in float64 without jax_enable_x64; where its network's module
        cannot be imported.
      RunWarning: a warning, where another epoch stands in for a damaged one, no epoch is evaluated yet, or
        the code of the network has changed.
    """
    if checkpoint is not None and (not isinstance(checkpoint, str) or checkpoint not in WHICH):
        raise InputError(f"checkpoint={checkpoint} must be one of {', '.join(WHICH)}")
    if str(workdir).startswith(zoo.PREFIX):
        return _from_zoo(str(workdir), checkpoint)
    checkpoint = checkpoint or "best"
    directory = check_path("workdir", workdir)
    config = read_config(directory)
    if not (directory / DIRECTORY).is_dir():
        raise InputError(f"workdir={directory} holds a run without checkpoints")
    if config.dtype == "float64":
        require_x64(f"workdir={directory}, trained in float64,")
    network = read_network_record(directory)
    require_model(directory, config.model.name, network)
    record, saved = _checkpoint(directory, checkpoint, config)
    weights = saved["ema"] if checkpoint.endswith("_ema") else saved
    return _finished_run(config, record["epoch"], weights, saved, network)


def _checkpoint(directory: pathlib.Path, which: str, config) -> tuple[dict, dict]:
    """Record and arrays of a checkpoint; raises InputError where the run has none of that name."""
    checkpoints = Checkpoints(directory)
    record = checkpoints.find(which)
    if record is None and checkpoints.find("last"):
        lacks = "held no images out for validation" if "valid" in which else "averaged no weights"
        if config.data.get("validation_examples") if "valid" in which else config.get("ema_decay"):
            lacks = f"is not evaluated yet, config.evaluation.every being {config.evaluation.every}"
        raise InputError(f"checkpoint={which}: the run in {directory} {lacks}")
    if record is None:
        why = f": {checkpoints.damages()[0]}" if checkpoints.damages() else ""
        raise InputError(f"workdir={directory} holds a run without checkpoints{why}")
    if "pgd_accuracy" not in record and which == "best" and config.evaluation.every > 1:
        _warn(f"{directory}: no epoch is evaluated yet: the newest stands in for the best", calls=2)
    _check_summary(directory, which, record, checkpoints.damages())
    for why in checkpoints.damages():
        _warn(f"{why}: {which} is the one after epoch {record['epoch'] + 1}", calls=2)
    saved = checkpoints.load(record)
    checkpoints.close()
    return record, saved


def _finished_run(
    config, epoch: int, weights: dict, saved: dict, network: NetworkRecord | None = None
) -> FinishedRun:
    """The network of a config with these `params` and `batch_stats`."""
    if network is None:
        network = record_of_params(weights["params"])
    model, dtype = config.model, "float64" if config.dtype == "float64" else "float32"
    with named_in("config.model", "name mean std", dtype="config"):
        classifier = make_classifier(
            model.name, network.num_classes, tuple(model.mean), tuple(model.std), dtype=dtype
        )
    # A network without running statistics has none in its checkpoint.
    variables = weights["params"], weights.get("batch_stats", {})
    code = ""
    if network.model:
        check_shapes(classifier, network, variables)
        code = _code(model.name, classifier, network)
    params, batch_stats = devices.replicate_on_this_host(variables)
    return FinishedRun(
        config,
        epoch,
        classifier,
        params,
        batch_stats,
        network.image_shape,
        network.num_classes,
        saved,
        code,
    )


def _code(name: str, classifier: Classifier, network: NetworkRecord) -> str:
    """Digest of a network of the user's own; warns where it is not that with which training began."""
    now, begun = fingerprint(classifier, network.image_shape), network.program
    if begun is None:
        return now.sha256
    if begun.differs(now):
        where = network.model.file or network.model.module if network.model else ""
        _warn(
            f"the network {name!r} of {where} has changed since the run began: it computes something else "
            "with the same weights",
            calls=3,
        )
        return now.sha256
    return begun.sha256  # also where other versions trace another program for the same code


def _from_zoo(name: str, checkpoint: str | None) -> FinishedRun:
    card = zoo.read_card(name)
    if checkpoint not in (None, card.checkpoint):
        raise InputError(f"checkpoint={checkpoint}: of {name} there is {card.checkpoint} alone")
    config = ml_collections.ConfigDict(completed(card.config))
    if config.dtype == "float64":
        require_x64(f"{name}, trained in float64,")
    network = zoo.read_weights(card)
    return _finished_run(config, card.epoch, network, network)
