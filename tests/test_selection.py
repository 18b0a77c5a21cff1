from rwp_jax.selection import WHICH, choose

RECORDS = [
    {"epoch": 0, "pgd_accuracy": 0.5, "validation_pgd_accuracy": 0.1},
    {"epoch": 1, "pgd_accuracy": 0.5, "validation_pgd_accuracy": 0.4},
    {"epoch": 2, "pgd_accuracy": 0.3, "validation_pgd_accuracy": 0.4},
]


def test_the_earlier_of_equals():
    chosen = {which: choose(which, RECORDS) for which in WHICH}
    epochs = {which: record and record["epoch"] for which, record in chosen.items()}
    expected = {"best": 0, "best_by_validation": 1, "last": 2, "best_ema": None, "last_ema": None}
    assert epochs == expected


def test_imported_networks_have_no_figures():
    imported = {"epoch": 9}
    assert choose("best", [imported]) == choose("last", [imported]) == imported
    assert choose("best", [imported, RECORDS[2]]) == RECORDS[2]
    assert choose("last", []) is None
