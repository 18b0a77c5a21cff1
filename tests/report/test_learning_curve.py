import warnings

import numpy as np

from rwp_jax.configs import digits_at_rwp
from rwp_jax.report import style
from rwp_jax.report.learning_curve import draw_learning_curve
from tests.report.test_curves import pixels


def records(*natural):
    return [
        {"epoch": e, "split": s, "natural_accuracy": value, "pgd_accuracy": value / 2}
        for e, value in enumerate(natural)
        for s in ("train", "test")
    ]


def test_draws_curves_with_their_best_and_the_drops(tmp_path, figures):
    config = digits_at_rwp.get_config()
    config.epochs = 4
    path = tmp_path / "curve.png"
    draw_learning_curve(records(0.5, 0.75, 0.625, 0.5), config, "digits", path)
    for index in (3, 6):
        assert len(pixels(path, style.COLOURS[index])) > 300
    (axes,) = figures[0].axes
    assert sorted(text.get_text() for text in axes.texts) == ["37.5", "75.0"]
    upright = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert {2, 3} <= set(upright), "drops of the learning rate"
    title = figures[0]._suptitle.get_text()
    assert "digits\n" in title and "WRN-10-2, L∞ ε = 0.3, 4 epochs, seed 0" in title


def test_markers_at_100_percent_are_whole(tmp_path, figures):
    config = digits_at_rwp.get_config()
    draw_learning_curve(records(0.0, 1.0, 1.0), config, "digits", tmp_path / "curve.png")
    (axes,) = figures[0].axes
    heights = axes.transData.transform([[0, 0], [0, 100]])[:, 1]
    room = np.array([heights[0] - axes.bbox.y0, axes.bbox.y1 - heights[1]])
    assert (room * 72 / figures[0].dpi > 4.5).all(), "the radius of a ring, in points"


def test_a_run_without_epochs_draws_nothing_and_says_nothing(tmp_path):
    with warnings.catch_warnings(action="error"):
        draw_learning_curve([], digits_at_rwp.get_config(), "imported", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").exists()
