"""Invalid user-defined objectives are refused before anything is written."""

import sys

import jax.numpy as jnp
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.losses import cross_entropy
from rwp_jax.training import self_training
from rwp_jax.training.objective import Aux, Objective
from rwp_jax.training.objectives import OBJECTIVES, make_objective, register_objective
from tests.small import shrink, write_two_classes

pytestmark = pytest.mark.usefixtures("one_device")


def attack_loss(forward, x, y):
    return lambda logits: cross_entropy(logits, y)


def objective(per_example=lambda loss, aux: (loss, aux), attack_loss=attack_loss, **settings):
    """Returns AT with its loss and aux changed by `per_example`."""

    def own(train, params, batch):
        logits, moments = train(params, batch.x_adv)
        loss = cross_entropy(logits, batch.y)
        return per_example(loss, Aux(loss, (moments,), logits.argmax(-1) == batch.y, {}))

    return Objective(own, attack_loss, **settings)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(OBJECTIVES, "_builders", dict(OBJECTIVES._builders))
    monkeypatch.setattr(OBJECTIVES, "_origins", {})
    data = write_two_classes(tmp_path / "two.npz", 48, 20)
    config = shrink(digits_at_rwp.get_config("full"), **{"data.path": data})
    config.objective.name, config.objective.shift = "own", 0.25
    return config


def aux(**values):
    return {"per_example": lambda loss, aux: (loss, aux._replace(**values))}


def terms(**values):
    return aux(terms=values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"per_example": lambda loss, aux: None},
            "per_example= returns NoneType, must return .loss .B., rwp_jax.Aux.",
        ),
        (aux(moments=()), "per_example= returns Aux with moments=an empty tuple, must be a tuple"),
        (aux(moments={}), "per_example= returns Aux with moments=a dict, must be a tuple"),
        ({"per_example": lambda loss, aux: (loss, 1)}, r"per_example= returns \(.*, int\), must"),
        ({"per_example": lambda loss, aux: 1 / 0}, "per_example= fails: ZeroDivisionError"),
        (
            {"attack_loss": lambda forward, x, y: None},
            "attack_loss= returns a NoneType, must return a function of logits",
        ),
        ({"per_example": lambda loss, aux: (loss.mean(), aux)}, "per_example= gives float64"),
        (terms(loss=jnp.ones(2)), "its term 'loss' has the name of another metric"),
        (terms(robust_accuracy=jnp.ones(2)), "'robust_accuracy' has the name of another metric"),
        (terms(mean=jnp.ones(())), r"the term 'mean' of float64\[\], must be floating-point \[B\]"),
        (terms(count=jnp.ones(2, int)), r"the term 'count' of int64\[2\], must be floating-point"),
        (terms(count="x"), "the term 'count' of a str, must be floating-point"),
        (aux(terms=None), "Aux with terms=None, must be a dict of arrays by name"),
        (aux(terms={3: 1.0}), "Aux with terms={3: 1.0}, must be a dict of arrays by name"),
        (aux(correct=jnp.ones(2)), r"Aux with correct of float64\[2\], must be bool \[B\]"),
        (aux(correct=None), "Aux with correct of a NoneType, must be bool"),
        (aux(gate_loss=None), "Aux with gate_loss of a NoneType, must be floating-point losses"),
        (aux(moments=(3,)), "Aux with moments that train did not return"),
        (
            {"attack_loss": lambda forward, x, y: lambda logits: logits.argmax(-1)},
            r"attack_loss= gives int64\[2\], must be floating-point losses \[B\], one per example",
        ),
        (
            {"attack_loss": lambda forward, x, y: lambda logits: logits.mean()},
            r"attack_loss= gives float64\[\], must be",
        ),
        ({"attack_loss": lambda forward, x, y: lambda logits: None}, "attack_loss= gives a NoneT"),
        ({"attack_loss": 3}, "attack_loss=3 must be a function"),
        ({"attack_modes": None}, "attack_modes=None must be some of train, batch, eval"),
        ({"attack_modes": "train"}, "attack_modes='train' must be some of train, batch, eval"),
        ({"uses_unlabelled": "no"}, "uses_unlabelled='no' must be True or False"),
        ({"accuracy": "loss"}, "accuracy='loss' is the name of another metric"),
        ({"accuracy": 3}, "accuracy=3 must be a word, the metric's name"),
        ({"accuracy": ""}, "accuracy='' must be a word"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    config, tmp_path, settings, message
):
    register_objective("own", lambda shift, **_: objective(**settings))
    with pytest.raises(InputError, match=f"config.objective.name='own'.*{message}|{message}"):
        self_training.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_no_objective_is_refused(config, tmp_path):
    register_objective("own", lambda **_: None)
    with pytest.raises(
        InputError, match="name='own': its builder returns a NoneType, must return an"
    ):
        self_training.train(config, tmp_path / "run")


def test_a_builder_that_ends_the_program_is_named(config, tmp_path):
    register_objective("own", lambda **_: sys.exit("no GPU"))
    with pytest.raises(InputError, match="name='own': its builder fails .SystemExit: no GPU."):
        self_training.train(config, tmp_path / "run")


def test_its_settings_are_not_the_first_stages(config, tmp_path):
    """RST's first stage trains without attacks; its objective has no setting `shift`."""
    register_objective("own", lambda shift, **_: objective())
    config.self_training.epochs, config.data.labeled_examples = 1, 24
    teacher = self_training.teacher_config(config)
    assert teacher.objective.to_dict() == {
        "name": "natural",
        "beta": 6.0,
        "entropy_weight": 0.0,
        "label_smoothing": 0.0,
        "clip": 0.0,
    }
    assert self_training.train(config, tmp_path / "run")["last"]["epoch"] == 2


def test_a_builder_that_fails_is_named(config, tmp_path):
    def builder(shift, **_):
        raise ValueError("shift is no pair\nof numbers")

    register_objective("own", builder)
    with pytest.raises(
        InputError,
        match=r"name='own': its builder fails \(ValueError: shift is no pair\)$",
    ):
        self_training.train(config, tmp_path / "run")


@pytest.mark.parametrize(("key", "value"), [("shift", -0.5), ("shift", "left")])
def test_settings_are_the_builders_own(config, key, value):
    """Only settings of the package's objectives must lie in [0, inf)."""
    given = []
    register_objective("own", lambda shift, **_: given.append(shift) or objective())
    config.objective.unlock()
    del config.objective.shift
    config.objective[key] = value
    make_objective(**config.objective.to_dict())
    assert given == [value]


def test_builders_need_not_know_of_label_smoothing(config):
    settings = {"beta": 0.0, "entropy_weight": 0.0, "shift": 0.25}
    register_objective("unaware", lambda beta, entropy_weight, shift: objective())
    assert make_objective("unaware", label_smoothing=0.0, **settings)
    with pytest.raises(InputError, match="unexpected keyword argument 'label_smoothing'"):
        make_objective("unaware", label_smoothing=0.1, **settings)
    given = []
    register_objective(
        "aware", lambda label_smoothing=0.5, **_: given.append(label_smoothing) or objective()
    )
    make_objective("aware", label_smoothing=0.0, **settings)
    register_objective("open", lambda **kw: given.append(kw["label_smoothing"]) or objective())
    make_objective("open", label_smoothing=0.0, **settings)
    assert given == [0.0, 0.0]


def test_cutmix_needs_an_objective_that_mixes_labels(config, tmp_path):
    config.augment.cutmix = 1.0
    register_objective("own", lambda **_: objective())
    with pytest.raises(InputError, match="cutmix=1.0 needs an objective that takes mixed labels"):
        self_training.train(config, tmp_path / "run")
    # It says that it mixes, but its attack takes no second labels.
    register_objective("own", lambda **_: objective()._replace(mixes_labels=True))
    with pytest.raises(InputError, match="config.objective.name='own'.*takes 3 positional"):
        self_training.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
