"""Malformed overrides are refused with one line, or the run trains.

Every example passes through the command line's parser and the trainer, up to the first step. By default the
step is only traced, which reveals wrong shapes and types; the slow test compiles and runs it.
"""

import pathlib
import shutil
import tempfile

import jax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwp_jax.command_line.flags import CONFIG as CONFIG_FLAG
from rwp_jax.command_line.modes import MODES
from rwp_jax.command_line.parsing import parse_flags
from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError
from rwp_jax.runs.config import flatten
from rwp_jax.training import experiment, self_training
from tests.fresh_flags import forget_flags

CONFIG = "configs/digits_at_rwp.py"
DEFAULTS = flatten(digits_at_rwp.get_config().to_dict())
SMALL = ("--config.attack.steps=1", "--config.weight_perturbation.steps=1")
NUMBERS = (
    "0 -1 1 -0.5 0.5 1e-9 1e30 1e400 nan inf -inf 2147483647 2147483648 -2147483649 1_000 0x10 8/255 8/0 "
    "8/ 99999999999999999999 True false None () (1,) (0.5,) (0.5,0.5) (nan,) ('a',) [] {}"
)
NAMES = (
    "abc é . / ~ l_1 l_2 float16 float64 bfloat16 pmap shard_map none awp rwp at natural trades rst train "
    "eval batch paper digits npz cifar10 mnist wrn-10-1 wrn-10-0 wrn-11-1 wrn--6-1 wrn-1000000-1 "
    "wrn-10-100000 preactresnet18 resnet50 zero cosine_epoch linear_2015"
)
FOREIGN = [*NUMBERS.split(), *NAMES.split(), "", " ", "0 0", "a\nb"]


class Trained(Exception):
    """Raised at the first training step."""


def near(value):
    """Returns a strategy for values of the same type as `value`, in range or not."""
    if isinstance(value, bool):
        return st.sampled_from(["true", "false", "True", "0"])
    if isinstance(value, int):
        return st.integers(-2, 40).map(str)
    if isinstance(value, float):
        return st.floats(-1, 2, width=32).map(repr)
    return st.sampled_from([str(v) for v in DEFAULTS.values() if isinstance(v, str)])


@st.composite
def overrides(draw):
    keys = draw(st.lists(st.sampled_from(sorted(DEFAULTS)), min_size=1, max_size=3, unique=True))
    values = [draw(st.one_of(st.sampled_from(FOREIGN), near(DEFAULTS[key]))) for key in keys]
    if draw(st.integers(0, 9)) == 0:
        keys[0] = keys[0][:-1]
    return [f"--config.{key}={value}" for key, value in zip(keys, values, strict=True)]


@pytest.fixture
def until_first_step(monkeypatch):
    """Makes the trainer raise Trained at its first step, which it runs (`run=True`) or traces."""
    build = experiment.build

    def install(run: bool):
        def build_for_one_step(*arguments, **keywords):
            parts = build(*arguments, **keywords)

            def step(*inputs):
                _ = parts.train_step(*inputs) if run else jax.eval_shape(parts.train_step, *inputs)
                raise Trained

            return parts._replace(train_step=step)

        monkeypatch.setattr(experiment, "build", build_for_one_step)

    return install


def check(arguments: list[str]) -> str:
    """Returns `trained`, or the error message if the arguments are refused."""
    forget_flags()
    parent = pathlib.Path(tempfile.mkdtemp())
    directory = parent / "run"
    try:
        parse_flags(["main.py", f"--config={CONFIG}", *SMALL, *arguments], MODES)
        self_training.train(CONFIG_FLAG.value, directory)
    except Trained:
        return "trained"
    except InputError as error:
        assert str(error) and "\n" not in str(error), str(error)
        assert not directory.exists()
        return str(error)
    finally:
        jax.config.update("jax_enable_x64", True)
        shutil.rmtree(parent)
    raise AssertionError("neither refused nor trained")


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=60, **COMMON)
@given(arguments=overrides())
def test_refused_or_traced(until_first_step, arguments):
    until_first_step(run=False)
    check(arguments)


@pytest.mark.slow
@settings(max_examples=300, **COMMON)
@given(arguments=overrides())
def test_refused_or_trained(until_first_step, arguments):
    until_first_step(run=True)
    check(arguments)


def test_both_outcomes_are_seen(until_first_step):
    until_first_step(run=False)
    assert check([]) == "trained"
    assert "config.epochs=0 must be at least 1" in check(["--config.epochs=0"])
