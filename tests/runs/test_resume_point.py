from rwp_jax.runs.resume_point import WHICH, choose

RECORDS = [
    {"epoch": 0, "pgd_accuracy": 0.5, "validation_pgd_accuracy": 0.1},
    {"epoch": 1, "pgd_accuracy": 0.5, "validation_pgd_accuracy": 0.4},
    {"epoch": 2, "pgd_accuracy": 0.3, "validation_pgd_accuracy": 0.4},
]


def test_the_earlier_of_equals():
    chosen = {which: choose(which, RECORDS) for which in WHICH}
    epochs = {which: record and record["epoch"] for which, record in chosen.items()}
    expected = {"best": 0, "best_by_validation": 1, "last": 2, "best_ema": None, "last_ema": None}
    assert epochs == expected | {"best_by_validation_ema": None}


def test_the_best_average_on_held_out_images():
    figures = [(0.9, 0.1), (0.2, 0.6), (0.3, 0.6)]  # on the test set and on held-out images
    records = [
        {"epoch": epoch, "ema_pgd_accuracy": test, "validation_ema_pgd_accuracy": held_out}
        for epoch, (test, held_out) in enumerate(figures)
    ]
    assert choose("best_by_validation_ema", records)["epoch"] == 1
    assert choose("best_ema", records)["epoch"] == 0


def test_another_attack_on_held_out_images_is_another_measure():
    """The first record is that of a version without the key, whose attack was the one on test images."""
    attacks = [
        {},
        {"evaluation.validation_attack": "cw40"},
        {"evaluation.validation_attack": "cw40"},
    ]
    records = [r | {"config": {"epochs": 3} | a} for r, a in zip(RECORDS, attacks, strict=True)]
    records[0]["validation_pgd_accuracy"] = 0.9
    assert choose("best_by_validation", records)["epoch"] == 1
    del records[1]["config"]["evaluation.validation_attack"]
    assert choose("best_by_validation", records)["epoch"] == 2


def test_imported_networks_have_no_figures():
    imported = {"epoch": 9}
    assert choose("best", [imported]) == choose("last", [imported]) == imported
    assert choose("best", [imported, RECORDS[2]]) == RECORDS[2]
    assert choose("last", []) is None


def test_before_the_first_evaluation_the_newest_stands_in():
    records = [{"epoch": epoch, "config": {"ema_decay": 0.9}} for epoch in range(3)]
    assert choose("best", records)["epoch"] == 2
    assert choose("last_ema", records)["epoch"] == 2
    assert choose("best_ema", records) is None
    assert choose("best", [*records, {"epoch": 1, "pgd_accuracy": 0.0}])["epoch"] == 1


def test_the_last_average_is_of_the_last_epoch_though_it_was_not_evaluated():
    records = [{"epoch": 0, "ema_pgd_accuracy": 0.5}, {"epoch": 1, "config": {"ema_decay": 0.9}}]
    assert choose("last_ema", records)["epoch"] == 1
    assert choose("best_ema", records)["epoch"] == 0
