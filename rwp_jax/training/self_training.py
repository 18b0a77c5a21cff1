"""RST as one run: plain training on the labels there are, pseudo-labels from it, then the run itself."""

import contextlib
import json
import pathlib

import ml_collections
import numpy as np

from rwp_jax.data import readers
from rwp_jax.distributed import processes
from rwp_jax.errors import InputError, check_path
from rwp_jax.evaluation import pseudo_label
from rwp_jax.files import write_json
from rwp_jax.runs import layout
from rwp_jax.runs.config import flatten
from rwp_jax.runs.loaded import load_run
from rwp_jax.training import experiment, trainer, training_data
from rwp_jax.training.config_checks import check_keys, with_norm_name
from rwp_jax.training.profiling import check_directory

TEACHER, PSEUDO_LABELS = "teacher", "pseudo_labels.npz"


def teacher_config(config) -> ml_collections.ConfigDict:
    """The first stage: the same network trained plainly, on the labelled images alone."""
    teacher = config.copy_and_resolve_references()
    teacher.epochs = config.self_training.epochs
    teacher.epoch_examples = 0
    teacher.self_training.epochs = 0
    teacher.extra_data.unlabeled_fraction = 0.0
    # Settings of a registered objective's own are not the plain one's.
    common = {key: config.objective.get(key, 0.0) for key in ("beta", "entropy_weight")}
    teacher.objective = ml_collections.ConfigDict({"name": "natural"} | common)
    teacher.weight_perturbation.name = "none"
    return teacher


def check_first_stage(config, has_extra: bool) -> None:
    """Raises InputError for a first stage that has nothing to label, or whose labels nobody uses."""
    if config.extra_data.path or not has_extra:
        raise InputError(
            f"config.self_training.epochs={config.self_training.epochs} needs images to label: "
            "config.data.labeled_examples > 0, and config.extra_data.path=''; with labels of your own "
            "it must be 0"
        )
    if not config.extra_data.use_labels:
        raise InputError(
            "config.extra_data.use_labels=False throws away what config.self_training.epochs="
            f"{config.self_training.epochs} is for: one of the two must go"
        )


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path | str = "runs/run",
    resume: bool = True,
    profile: pathlib.Path | str | None = None,
) -> dict:
    """Trains as the config says, continuing the run that the directory may hold.

    As `trainer.train`, after the first stage if config.self_training asks for one. That is a run of its own
    in WORKDIR/teacher. Its last network labels the images that config.data.labeled_examples left out; with
    WORKDIR/pseudo_labels.npz written it is done.

    Args:
      config: with the keys of `rwp_jax.configs.default`, which the other configs start from.
      workdir: directory of the run; gets config.json, metrics.jsonl, TensorBoard events, checkpoints/,
        summary.json and learning_curve.png.
      resume: whether a run of the same config that is there already may be continued.
      profile: directory for a trace of some steps, see `profiling`; None for none.

    Returns:
      The content of summary.json: accuracies of the best and the last epoch, and more.

    Raises:
      InputError: for bad input, before anything is compiled or written.
      NonFiniteLoss: see `divergence`.
      Interrupted: after SIGTERM or SIGINT, once the state is saved.
    """
    directory, profile = (
        check_path("workdir", workdir),
        check_path("profile", profile) if profile else None,
    )
    check_keys(config)
    config = with_norm_name(config)
    if not config.self_training.epochs:
        return trainer.train(config, directory, resume, profile=profile)

    # Check both stages before the first begins.
    teacher = teacher_config(config)
    plain_config = json.loads(config.to_json())
    processes.check_equal("the config", flatten(plain_config))
    experiment.check_config(config, is_new=False)
    experiment.check_config(teacher)
    if profile:
        processes.by_first(lambda: check_directory(profile))
    resuming = processes.by_first(lambda: layout.check(directory, plain_config, resume))
    if not resuming:
        experiment.check_attack_mode(config)
    data = processes.together(lambda: training_data.load_data(config))
    images = data.x_extra
    check_first_stage(config, images is not None)
    assert images is not None  # as checked
    experiment.check_sizes(config, data)
    experiment.check_sizes(teacher, data)
    if processes.is_first() and not resuming:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / layout.CONFIG, plain_config)

    path = directory / PSEUDO_LABELS
    with contextlib.ExitStack() as held:
        processes.by_first(lambda: held.enter_context(layout.lock(directory)))
        if not processes.by_first(path.exists):
            processes.say(f"first stage: plain training on {len(data.y_train)} labelled images")
            trainer.train(teacher, directory / TEACHER, data=data)
            processes.by_first(lambda: _label(directory / TEACHER, images, path))
    labels = processes.by_first(lambda: readers.read_extra(str(path))[1].tolist())
    if len(labels) != len(images):
        raise InputError(
            f"{path} has {len(labels)} labels for {len(images)} images: it is not of this data set"
        )
    data = data._replace(y_extra=np.array(labels, np.int32))
    processes.say(f"second stage: {config.objective.name} with {len(images)} extra images")
    return trainer.train(config, directory, data=data, profile=profile)


def _label(teacher: pathlib.Path, images: np.ndarray, path: pathlib.Path) -> None:
    """Writes what the teacher's last network says about the images."""
    predictions = pseudo_label.predict(load_run(teacher, "last"), images)
    pseudo_label.write(path, images, *predictions)
