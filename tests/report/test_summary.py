import csv

import pytest

from rwp_jax.configs import digits_at
from rwp_jax.report import summary
from rwp_jax.report.results import read_result
from rwp_jax.report.spread import spread
from rwp_jax.report.table import MISSING, Table, as_text, write_csv
from tests.small import write_evaluation, write_run


def test_mean_and_sample_deviation():
    assert spread([0.5, None, 0.7])[:3] == pytest.approx((0.6, 0.1 * 2**0.5, 2))
    assert spread([0.5]).percent() == "50.00"
    assert spread([0.5], examples=100).percent() == "50.00 [40.38, 59.62]"
    assert spread([0.5, 0.51, 0.52]).percent() == "51.00 [48.52, 53.48]"
    assert spread([-0.01, -0.02]).percent(signed=True) == "−1.50 [−7.85, +4.85]"
    assert spread([None]) is None


@pytest.fixture
def groups(tmp_path):
    """Returns two seeds of a setting with held-out images and one seed of a setting without."""
    splits = {"validation_pgd_accuracy": [0.3, 0.2], "train_pgd_accuracy": [0.5, 0.9]}
    runs = [
        write_run(
            tmp_path / f"a{seed}", digits_at.get_config("full"), [0.2 + seed / 10, 0.4], **splits
        )
        for seed in range(2)
    ]
    write_evaluation(runs[0], "best", {"natural": 0.5, "autoattack": 0.2}, epoch=1)
    other = write_run(tmp_path / "b", digits_at.get_config("full"), [0.1])
    return {"a": list(map(read_result, runs)), "b": [read_result(other)]}


def test_best_by_validation_stands_beside_best_by_test(groups):
    table = summary.summary_table(groups)
    figures = {
        name: dict(zip(table.header, row, strict=True))
        for name, *row in table.rows
        for row in [[name, *row]]
    }
    assert figures["a"]["best: PGD"] == "40.00 [40.00, 40.00]"
    assert figures["a"]["best by validation: PGD"] == "25.00 [0.00, 88.53]"
    assert figures["a"]["last: PGD, training − test"] == "50.00 [50.00, 50.00]"
    assert figures["b"]["best: PGD"] == "10.00 [7.31, 13.53]", "of 360 test images"
    assert figures["b"]["best by validation: PGD"] == MISSING
    assert "best ema: PGD" not in table.header, "columns without any figure are left out"
    assert "held-out training images" in table.note and "as in the paper" in table.note


def test_the_columns_of_table_2(groups):
    table = summary.evaluation_table(groups)
    cells = ["50.00 [40.38, 59.62]", *[MISSING] * 4, "20.00 [13.34, 28.88]"]
    assert table.rows == [["a, best", *cells]]
    assert "100 test images" in table.note
    assert summary.evaluation_table({"b": groups["b"]}) is None


def test_csv_has_one_number_a_cell(tmp_path):
    header = ["threat, method", "paper: best", "PGD", "mean k", "state"]
    rows = [
        ["L_2, a / b", "1.00±0.50", "3.00 [2.00, 4.00]", "4.00", "1 of 2"],
        ["c", MISSING, "−1.00 [−2.50, +0.50]", "5.00", MISSING],
    ]
    write_csv(Table("", header, rows), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        names, *cells = csv.reader(file)
    assert names == [
        *("threat, method", "paper: best", "paper: best, std"),
        *("PGD", "PGD, low", "PGD, high", "mean k", "state"),
    ]
    assert cells[0] == ["L_2, a / b", "1.00", "0.50", "3.00", "2.00", "4.00", "4.00", "1 of 2"]
    assert cells[1] == ["c", "", "", "-1.00", "-2.50", "+0.50", "5.00", ""]


def test_text_is_aligned(groups):
    table = summary.summary_table(groups)
    lines = as_text(table).splitlines()
    assert len(lines) == 3 and all(len(line) == len(lines[0]) for line in lines[1:2])
