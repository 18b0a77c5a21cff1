"""The remarks about a gate that decides nothing for a whole epoch."""

import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.training.epoch_lines import gate_remark, start_remark


def remarks(gate_open, **changes):
    """The remark after each epoch, in which so many of 16 examples were open on average."""
    config = digits_at_rwp.get_config()
    config.weight_perturbation.update(changes)
    records, said = [], []
    for epoch, count in enumerate(gate_open):
        records.append({"split": "train", "epoch": epoch, "gate_open": count})
        records.append({"split": "test", "epoch": epoch})
        said.append(gate_remark(config, records))
    return said


def test_each_is_made_once():
    shut, _, open_, *rest = remarks([0.0, 3.5, 16.0, 16.0, 0.0, 15.9])
    assert shut == "epoch 1: no loss is below c_min=1.7, so that the weights are not perturbed"
    assert open_ == (
        "epoch 3: all losses are below c_min=1.7, so that every example perturbs the weights"
    )
    assert rest == ["", "", ""]


def test_epochs_before_the_first_that_perturbs_do_not_count():
    assert remarks([0.0, 0.0, 1.0], start_epoch=2) == ["", "", ""]
    assert remarks([0.0, 0.0], start_epoch=1)[1].startswith("epoch 2: no loss")


def test_a_perturbation_that_never_starts():
    config = digits_at_rwp.get_config()
    config.epochs = 3
    config.weight_perturbation.start_epoch = 2
    assert not start_remark(config)
    config.weight_perturbation.start_epoch = 3
    assert start_remark(config) == (
        "config.weight_perturbation.start_epoch=3: none of the 3 epochs perturbs the weights"
    )
    config.weight_perturbation.name = "none"
    assert not start_remark(config)


@pytest.mark.parametrize("name", ["none", "awp"])
def test_without_a_gate_there_is_none(name):
    assert remarks([0.0, 16.0], name=name) == ["", ""]


def test_awp_on_a_range():
    (remark,) = remarks([0.0], name="awp", lsc_low=1.0, lsc_high=1.7)
    assert remark == "epoch 1: no loss is in [1, 1.7), so that the weights are not perturbed"
