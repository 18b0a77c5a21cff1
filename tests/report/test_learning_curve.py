import warnings

import numpy as np
from PIL import Image

from rwp_jax.report.learning_curve import draw_learning_curve


def test_draws_four_curves(tmp_path):
    records = [
        {"epoch": e, "split": s, "natural_accuracy": 0.5 + e / 10, "pgd_accuracy": 0.3 + e / 20}
        for e in range(3)
        for s in ("train", "test")
    ]
    draw_learning_curve(records, "digits", tmp_path / "curve.png")
    picture = np.asarray(Image.open(tmp_path / "curve.png").convert("RGB"), int)
    assert picture.shape[0] > 400
    red, green, blue = np.moveaxis(picture, -1, 0)
    assert ((blue > red + 80) & (blue > green + 40)).sum() > 300, "blue lines"
    assert ((red > blue + 80) & (red > green + 80)).sum() > 300, "red lines"


def test_a_run_without_epochs_draws_nothing_and_says_nothing(tmp_path):
    with warnings.catch_warnings(action="error"):
        draw_learning_curve([], "imported", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()
