import csv

import numpy as np
import pytest
from scipy import stats

from rwp_jax.report.differences import Pair, difference, difference_table, verdicts
from rwp_jax.report.table import write_csv
from tests.report.test_curves import make_results


@pytest.fixture
def pair(tmp_path):
    ours = make_results(tmp_path / "ours", [0.5, 0.6], [0.6, 0.5], [0.7, 0.6])
    others = make_results(tmp_path / "others", [0.5, 0.4], [0.4, 0.3], [0.6, 0.5], [0.1, 0.1])
    return Pair("RWP", "AT", ours, others)


def test_runs_of_the_same_seed_are_compared(pair):
    gains = np.array([0.2, 0.2, 0.1])  # a fourth seed has no partner
    value = difference(pair)
    assert (value.mean, value.count) == (pytest.approx(gains.mean()), 3)
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (value.low, value.high) == pytest.approx(tuple(expected))


def test_the_table_has_a_row_for_what_can_be_compared(pair, tmp_path):
    nobody = Pair("RWP", "AWP", pair.results, [])
    table = difference_table([pair, nobody])
    (row,) = table.rows
    assert row[0] == "RWP − AT" and row[-1] == "3 of 3"
    write_csv(table, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        (figures,) = csv.DictReader(file)
    assert float(figures["best: PGD"]) == pytest.approx(13.33)
    assert float(figures["best − last: PGD"]) == pytest.approx(-100 * (0.2 - 0.1) / 3, abs=0.01)
    assert float(figures["last: PGD, low"]) < 16.67 < float(figures["last: PGD, high"])


@pytest.mark.parametrize(
    ("ours", "other", "name"),
    [
        ("RWP", "AT", "RWP − AT"),
        ("RWP, 2", "AWP, 2", "[RWP, 2] − [AWP, 2]"),
        ("[0, 0.2)", "AT", "[0, 0.2) − AT"),
    ],
)
def test_a_difference_is_named_without_doubt(ours, other, name):
    assert Pair(ours, other, [], []).name == name


def test_what_is_said_follows_the_intervals(pair):
    turned = Pair("AT", "RWP", pair.others, pair.results)
    unsure = pair._replace(others=pair.results[::-1], other="itself")
    last, fall = verdicts([pair, turned, unsure], ("last: PGD", "best − last: PGD"))
    assert last == (
        "After the last epoch the interval of the difference is above zero for RWP − AT (+16.67 points); "
        "it is below zero for AT − RWP (−16.67 points); "
        "it is on both sides of zero for RWP − itself (+0.00 points)."
    )
    assert fall.startswith(
        "Between best and last the interval of the difference is on both sides of"
    )
    assert verdicts([pair._replace(results=pair.results[:1])]) == [], "one seed has no interval"


def test_gaps_between_training_and_test_are_compared(tmp_path):
    ours, others = (
        make_results(tmp_path / name, *([last] for last in lasts), train_pgd_accuracy=[0.9])
        for name, lasts in {"ours": [0.6, 0.5, 0.6], "others": [0.4, 0.3, 0.5]}.items()
    )
    (said,) = verdicts([Pair("RWP", "AT", ours, others)], ("last: PGD, training − test",))
    assert said == (
        "Between training and test images, after the last epoch, the interval of the difference is below "
        "zero for RWP − AT (−16.67 points)."
    )
