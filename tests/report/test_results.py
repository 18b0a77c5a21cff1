import json

import pytest

from rwp_jax.configs import digits_at
from rwp_jax.errors import InputError
from rwp_jax.report.results import read_result
from tests.small import write_evaluation, write_run


def test_the_epochs_that_are_meant(tmp_path):
    directory = write_run(
        tmp_path / "run",
        digits_at.get_config("full"),
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
    directory = write_run(
        tmp_path / "run", digits_at.get_config("full"), [0.3, 0.5], finished=False
    )
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 2, "step": 9, "split": "train", "loss": 1.0}) + "\n")
        file.write('{"epoch": 2, "st')
    result = read_result(directory)
    assert not result.finished and result.seconds is None and len(result.epochs) == 2


def test_epochs_without_an_evaluation_count_and_are_never_chosen(tmp_path):
    config = digits_at.get_config("full")
    config.evaluation.every = 2
    directory = write_run(tmp_path / "run", config, [0.5, 0.3, 0.6, 0.2, 0.1])
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for record, k in zip(records, range(5), strict=True):
        if k % 2 == 0 and k != 4:
            record |= {"split": "train", "perturbation_steps": k}
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "metrics.jsonl").write_text(lines)
    result = read_result(directory)
    assert result.finished and len(result.epochs) == 5
    assert result.figure("best", "epoch") == 1 and result.figure("last", "pgd_accuracy") == 0.1
    assert result.curve("pgd_accuracy") == ([2, 4, 5], [0.3, 0.2, 0.1])
    assert result.mean("train_perturbation_steps") == 1


def test_evaluations_of_part_of_the_test_set_or_another_epoch_are_left_out(tmp_path):
    directory = write_run(tmp_path / "run", digits_at.get_config("full"), [0.3])
    write_evaluation(directory, "best", {"natural": 0.5})
    write_evaluation(directory, "last_10", {"natural": 0.9}, examples=10)
    write_evaluation(directory, "best_by_validation", {"natural": 0.9})
    write_evaluation(
        directory, "last", {"natural": 0.9}, epoch=1
    )  # the epoch is later than the run's last
    result = read_result(directory)
    assert result.evaluations == {"best": {"natural": {"accuracy": 0.5}}}
    assert result.test_examples == 100


RUN = {
    "config.json": '{"seed": 0, "epochs": 1, "data": {"name": "digits"}, "threat": {"norm": "l_2", '
    '"epsilon": 1}}',
    "metrics.jsonl": '{"epoch": 0, "split": "test", "pgd_accuracy": 0.5}\n',
}
METRICS = RUN["metrics.jsonl"]
DONE = '{"seconds": 1.0, "last": {"epoch": 2}, "epochs_count_from": 1}'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no run with metrics: there is no config.json"),
        ({"config.json": "{}"}, "holds no run with metrics: there is no metrics.jsonl"),
        (RUN | {"config.json": "{"}, "its config.json is not that of a run .JSONDecodeError."),
        (RUN | {"config.json": "{}"}, "its config.json is not that of a run"),
        (RUN | {"config.json": RUN["config.json"].replace("0", '"x"')}, "its config.json is not"),
        (RUN | {"metrics.jsonl": ""}, "holds no run with metrics: metrics.jsonl has no epoch"),
        (RUN | {"metrics.jsonl": "[1]\n"}, "metrics.jsonl has no epoch"),
        (RUN | {"metrics.jsonl": METRICS.replace("0.5", '"high"')}, "its metrics.jsonl is not"),
        (
            RUN | {"metrics.jsonl": METRICS.replace("0.5", "NaN")},
            "metrics.jsonl .* epoch 1 must be",
        ),
        (
            RUN | {"metrics.jsonl": METRICS.replace("0.5", "50")},
            r"pgd_accuracy=50.0 .* in .0, 1.\)",
        ),
        (RUN | {"summary.json": "1"}, "its summary.json is not that of a run .TypeError."),
        (RUN | {"summary.json": "{}"}, "its summary.json is not that of a run .KeyError."),
        (
            RUN | {"summary.json": DONE},
            "2 epochs are done, by its summary.json, but its metrics.jsonl is damaged after epoch 1",
        ),
        (
            RUN | {"evaluation/best/evaluation.json": "[1]"},
            "its evaluation/best/evaluation.json is",
        ),
        (RUN | {"evaluation/best/evaluation.json": '{"epoch": 0}'}, "evaluation.json is not that"),
    ],
)
def test_what_is_no_run(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"^workdir={tmp_path}.*{message}"):
        read_result(tmp_path)


def test_the_files_of_the_cases_above_are_a_run_without_the_damage(tmp_path):
    for name, text in RUN.items():
        (tmp_path / name).write_text(text)
    assert read_result(tmp_path).figure("best", "pgd_accuracy") == 0.5
