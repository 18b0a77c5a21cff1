"""Norms are accepted in any spelling, wherever a norm is given, and always written the same way."""

import numpy as np
import pytest

import rwp_jax
from rwp_jax.command_line import flags, modes
from rwp_jax.command_line.parsing import parse_flags
from rwp_jax.configs import cifar10_trades, digits_at_rwp, svhn_at
from rwp_jax.errors import InputError
from rwp_jax.names import norm_name, spelled
from rwp_jax.report.published import choose_published, read_published
from rwp_jax.training.config_checks import with_norm_name
from tests.fresh_flags import forget_flags

pytestmark = pytest.mark.usefixtures("one_device")

SPELLINGS = {"l_inf": ["l_inf", "L_inf", "linf", "Linf", "LINF"], "l_2": ["l_2", "L_2", "l2", "L2"]}
PAIRS = [(norm, written) for norm, several in SPELLINGS.items() for written in several]


@pytest.mark.parametrize(("norm", "written"), [*PAIRS, ("l_1", "L1")])
def test_names(norm, written):
    assert spelled(written) == norm == norm_name("norm", written)


@pytest.mark.parametrize("written", ["", "l", "inf", "l3", "l_inf_", " l2", None, 2])
def test_other_names(written):
    with pytest.raises(InputError, match="^norm=.* must be l_inf, l_2 or l_1$"):
        norm_name("norm", written)


def test_autoattack_and_its_relatives():
    logits_fn = lambda x: x.reshape(len(x), -1) @ np.arange(8.0, dtype=np.float32).reshape(4, 2)
    x, y = np.full((2, 2, 2, 1), 0.5, np.float32), np.ones(2, int)
    given = {"version": "custom", "attacks": "apgd-ce"}
    for norm, several in SPELLINGS.items():
        records = [rwp_jax.benchmark(logits_fn, (x, y), n, 0.1, **given) for n in several[:2]]
        assert {record["norm"] for record in records} == {norm}
        distance = [rwp_jax.minimum_norm(logits_fn, x, y, n).distance for n in several[:2]]
        np.testing.assert_array_equal(*distance)
        models = [rwp_jax.make_threat_model(n, 0.1) for n in several]
        assert {model.norm for model in models} == {norm}
    adversary = rwp_jax.AutoAttack(logits_fn, norm="l_2", eps=0.1, verbose=False)
    assert adversary.run_standard_evaluation(x, y).shape == x.shape


@pytest.mark.parametrize(("norm", "written"), PAIRS)
def test_configs(norm, written, monkeypatch):
    for module in (digits_at_rwp, cifar10_trades, svhn_at):
        assert module.get_config(written) == module.get_config(norm)
    config = digits_at_rwp.get_config(norm)
    config.threat.norm = written
    assert with_norm_name(config) == digits_at_rwp.get_config(norm)
    monkeypatch.setattr("sys.argv", ["main.py"])
    forget_flags()
    parse_flags(
        ["main.py", "--config=digits_at_rwp", f"--config.threat.norm={written}"], modes.MODES
    )
    assert flags.CONFIG.value.threat.norm == norm
    forget_flags()


def test_published_curves(tmp_path):
    path = tmp_path / "curves.csv"
    lines = [f"x{i},digits,{written},net,at,0,0.5,0.3" for i, (_, written) in enumerate(PAIRS)]
    columns = "source,dataset,norm,model,method,epoch,test_acc,test_robust_acc"
    path.write_text("\n".join([columns, *lines]))
    for norm, several in SPELLINGS.items():
        chosen = choose_published(read_published(path), "", {("digits", norm)})
        assert len(chosen) == len(several) and {curve.norm for curve in chosen} == {norm}
