"""RST as one run: plain training on the labelled images, pseudo-labelling, then training on both."""

import contextlib
import json
import pathlib

import ml_collections
import numpy as np

from rwp_jax.data import readers
from rwp_jax.distributed import processes
from rwp_jax.errors import InputError, check_integer, check_path
from rwp_jax.evaluation import pseudo_label
from rwp_jax.runs import history, layout
from rwp_jax.runs.config import flatten
from rwp_jax.runs.initial_weights import InitialWeights
from rwp_jax.runs.loaded import load_run
from rwp_jax.runs.restarts import MOST
from rwp_jax.training import experiment, fine_tuning, trainer, training_data
from rwp_jax.training.config_checks import check_keys, with_norm_name
from rwp_jax.training.profiling import check_directory

TEACHER, PSEUDO_LABELS = "teacher", "pseudo_labels.npz"


def teacher_config(config) -> ml_collections.ConfigDict:
    """Returns the first stage's config: the same network, plain training on the labelled images only."""
    teacher = config.copy_and_resolve_references()
    teacher.epochs = config.self_training.epochs
    teacher.epoch_examples = 0
    teacher.self_training.epochs = 0
    teacher.extra_data.unlabeled_fraction = 0.0
    # `natural` does not take the additional settings of a registered objective.
    keys = "beta", "entropy_weight", "label_smoothing"
    common = {key: config.objective.get(key, 0.0) for key in keys} | {"clip": 0.0}
    teacher.objective = ml_collections.ConfigDict({"name": "natural"} | common)
    teacher.weight_perturbation.name = "none"
    return teacher


def check_first_stage(config, has_extra: bool) -> None:
    """Raises InputError if the first stage has no images to label, or its labels are not used."""
    if config.extra_data.path or not has_extra:
        raise InputError(
            f"config.self_training.epochs={config.self_training.epochs} needs images to label: "
            "config.data.labeled_examples > 0, and config.extra_data.path=''; to train on labels of "
            "your own, set it to 0"
        )
    if not config.extra_data.use_labels:
        raise InputError(
            "config.extra_data.use_labels=False discards the labels that config.self_training.epochs="
            f"{config.self_training.epochs} produces: change one of the two"
        )


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str = "runs/run",
    resume: bool = True,
    profile: pathlib.Path | str | None = None,
    max_restarts: int = MOST,
    extend: bool = False,
    init_from: InitialWeights | None = None,
) -> dict:
    """Trains as the config specifies, or continues the run in the directory if there is one.

    If config.self_training.epochs > 0, a first stage precedes the training: a separate run in
    WORKDIR/teacher, whose last network labels the images that config.data.labeled_examples leaves out. It
    is complete when WORKDIR/pseudo_labels.npz is written.

    Args:
      config: ConfigDict with the keys of `rwp_jax.configs.default`, from which the other configs start.
      workdir: directory of the run; receives config.json, metrics.jsonl, TensorBoard events, checkpoints/,
        summary.json and learning_curve.png.
      resume: whether an existing run of the same config may be continued. Keys that only the evaluation
        uses may differ.
      profile: directory for a trace of some steps, see `profiling`; None for no trace.
      max_restarts: restarts in a row that may end without a new checkpoint before training gives up; 0 for
        any number.
      extend: whether the existing run goes on although other keys of its config have changed, such as
        `epochs`. The change applies from the first epoch that has not begun, and is kept in config.json.
      init_from: weights that a new run begins with, from `initial_weights`; None for drawn weights. With
        a first stage, the second begins with them.

    Returns:
      Content of summary.json: `best`, `last` and further checkpoints, each with its epoch (from 1) and
      accuracies in [0, 1], `seconds`, `devices` and `versions`.

    Raises:
      InputError: if an input is invalid; raised before anything is compiled or written.
      NonFiniteLoss: if the loss or the weights become non-finite, see `divergence`.
      Interrupted: after SIGTERM or SIGINT, once the state is saved.
    """
    directory, profile = (
        check_path("workdir", workdir),
        check_path("profile", profile) if profile else None,
    )
    max_restarts = check_integer("max_restarts", max_restarts, 0)
    check_keys(config)
    config = with_norm_name(config)
    if not config.self_training.epochs:
        return trainer.train(
            config, directory, resume, None, profile, max_restarts, extend, init_from
        )

    # Check both stages before the first begins.
    teacher = teacher_config(config)
    plain_config = json.loads(config.to_json())
    processes.check_equal("the config", flatten(plain_config))
    experiment.check_config(config, is_new=False)
    experiment.check_config(teacher)
    if profile:
        processes.by_first(lambda: check_directory(profile))
    path = directory / PSEUDO_LABELS
    resuming = trainer.check_run(config, directory, resume, extend, init_from)
    if processes.by_first(lambda: extend and not path.exists()):
        raise InputError(
            f"workdir={directory}: its first stage is not done: continue the run as it is before extend="
        )
    data = processes.together(lambda: training_data.load_data(config))
    images = data.x_extra
    check_first_stage(config, images is not None)
    assert isinstance(images, np.ndarray)  # checked above: no file or directory is given
    experiment.check_sizes(config, data)
    experiment.check_sizes(teacher, data)
    if processes.is_first() and not resuming:
        directory.mkdir(parents=True, exist_ok=True)
        history.write(directory, plain_config, fine_tuning.history_of(init_from))

    with contextlib.ExitStack() as held:
        processes.by_first(lambda: held.enter_context(layout.lock(directory)))
        if not processes.by_first(path.exists):
            processes.say(f"first stage: plain training on {len(data.y_train)} labelled images")
            trainer.train(teacher, directory / TEACHER, data=data, max_restarts=max_restarts)
            processes.by_first(lambda: _label(directory / TEACHER, images, path))
    labels = processes.by_first(lambda: readers.read_extra(str(path))[1].tolist())
    if len(labels) != len(images):
        raise InputError(
            f"{path} has {len(labels)} labels for {len(images)} images: it belongs to another data set"
        )
    data = data._replace(y_extra=np.array(labels, np.int32))
    processes.say(f"second stage: {config.objective.name} with {len(images)} extra images")
    return trainer.train(config, directory, True, data, profile, max_restarts, extend, init_from)


def _label(teacher: pathlib.Path, images: np.ndarray, path: pathlib.Path) -> None:
    """Labels the images with the teacher's last network and writes them to `path`."""
    predictions = pseudo_label.predict(load_run(teacher, "last"), images)
    pseudo_label.write(path, images, *predictions)
