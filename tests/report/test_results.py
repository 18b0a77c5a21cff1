import json

import pytest

from configs import digits_at
from rwp_jax.errors import InputError
from rwp_jax.report.results import read_result
from tests.small import write_evaluation, write_run


def test_the_epochs_that_are_meant(tmp_path):
    directory = write_run(
        tmp_path / "run",
        digits_at.get_config(),
        pgd=[0.3, 0.5, 0.4, 0.5],
        validation_pgd_accuracy=[0.2, 0.3, 0.6, 0.1],
        train_perturbation_steps=[0, 2, 4, 6],
    )
    result = read_result(directory)
    assert result.finished and result.seconds == 60
    assert result.figure("best", "epoch") == 1, "the earlier of two equal ones"
    assert result.figure("best_by_validation", "pgd_accuracy") == 0.4
    assert result.figure("last", "natural_accuracy") == 0.6
    assert result.figure("best_ema", "pgd_accuracy") is None
    assert result.curve("pgd_accuracy") == ([1, 2, 3, 4], [0.3, 0.5, 0.4, 0.5])
    assert result.mean("train_perturbation_steps") == 3


def test_an_unfinished_run_counts_its_whole_epochs(tmp_path):
    directory = write_run(tmp_path / "run", digits_at.get_config(), [0.3, 0.5], finished=False)
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2, "step": 9, "split": "train", "loss": 1.0}) + "\n")
        file.write('{"epoch": 2, "st')
    result = read_result(directory)
    assert not result.finished and result.seconds is None and len(result.epochs) == 2


def test_evaluations_of_part_of_the_test_set_are_left_out(tmp_path):
    directory = write_run(tmp_path / "run", digits_at.get_config(), [0.3])
    write_evaluation(directory, "best", {"natural": 0.5})
    write_evaluation(directory, "last_10", {"natural": 0.9}, examples=10)
    result = read_result(directory)
    assert result.evaluations == {"best": {"natural": {"accuracy": 0.5}}}
    assert result.test_examples == 100


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no readable config.json"),
        ({"config.json": "{"}, "no readable config.json"),
        ({"config.json": "{}"}, "no readable metrics.jsonl"),
        ({"config.json": "{}", "metrics.jsonl": ""}, "no readable metrics.jsonl"),
        ({"config.json": "{}", "metrics.jsonl": '{"epoch": 1}\n'}, "are no metrics of a run"),
        ({"config.json": "{}", "metrics.jsonl": "[1]\n"}, "are no metrics of a run"),
    ],
)
def test_what_is_no_run(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"^--workdirs: .*{message}"):
        read_result(tmp_path)
