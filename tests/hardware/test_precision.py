"""Precision of matrix products: full float32 or the device's fast mode."""

import re

import jax
import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.distributed.devices import filling_batch, mesh_of
from rwp_jax.hardware.datasheets import TPUS
from rwp_jax.hardware.programs import lower_evaluate, lower_train
from rwp_jax.hardware.topology import Hardware
from rwp_jax.training.experiment import filled

HARDWARE = Hardware("two", TPUS["v6e"], mesh_of(jax.devices()[:2]), {})


def small(**changes):
    config = digits_at_rwp.get_config()
    config.model.name, config.batch_size = "wrn-10-1", 16
    config.update_from_flattened_dict(changes)
    return filled(config, devices=2)


def precisions(lowered) -> list[str]:
    """Returns the precision of each convolution and matrix product."""
    text = lowered.as_text()
    assert "algorithm =" not in text
    pairs = re.findall(
        r"precision(?:_config)? = \[#?(?:stablehlo<precision )?(\w+)>?, #?.*?\]", text
    )
    assert len(pairs) == len(re.findall(r"stablehlo\.(?:convolution|dot_general)", text))
    return pairs


@pytest.mark.parametrize(("search", "expected"), [("default", "DEFAULT"), ("high", "HIGH")])
def test_verdicts_are_in_full_float32_and_the_search_as_asked(search, expected):
    held = precisions(lower_evaluate(small(**{"evaluation.precision": search}), HARDWARE))
    # The search has a forward and a backward pass, the verdicts two forward passes.
    assert held.count(expected) == held.count("HIGHEST") == len(held) / 2 > 0


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_training_is_as_asked(precision):
    assert set(precisions(lower_train(small(precision=precision), HARDWARE))) == {precision.upper()}


def test_what_a_process_asks_for_is_the_default():
    with jax.default_matmul_precision("highest"):
        assert set(precisions(lower_train(small(), HARDWARE))) == {"HIGHEST"}
        assert set(precisions(lower_train(small(precision="high"), HARDWARE))) == {"HIGH"}


def test_batches_of_evaluations_fill_the_devices():
    assert [filling_batch("cpu", n) for n in (1, 8, 6)] == [128, 128, 132]
    assert filling_batch("cuda", 8) == filling_batch("tpu", 8) == 2048
    assert small().evaluation.batch_size == 128
    assert small(**{"evaluation.batch_size": 32}).evaluation.batch_size == 32
