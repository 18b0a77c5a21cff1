import math

import numpy as np
import pytest

from rwp_jax.report import style
from rwp_jax.report.landscape_plot import Network, draw_landscape


def network(look, gamma, highest):
    far, near = np.linspace(-1, 1, 5), np.linspace(0, 0.04, 5)
    random = np.stack([1 + far**2, 1 + 1.5 * far**2])
    along = np.linspace(1, highest, 5)[None]
    return Network(
        {"random": (far, random), "awp": (near, along), "rwp": (near, along)}, look, gamma
    )


@pytest.mark.parametrize("highest", [1.1, 2.5, 30.0])
def test_all_markers_are_inside_and_gammas_marked(highest, tmp_path, figures):
    runs = {"RWP": network(2, 0.01, highest), "AT": network(0, None, 2)}
    caption = draw_landscape(runs, 10, "title", "setting", tmp_path / "x.png")
    upper, lower = figures[0].axes
    for axes, top in ((upper, 2.5), (lower, highest)):
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 1.05 * top
    assert [text.get_text() for text in lower.texts] == ["γ = 0.01"]
    (line,) = (line for line in upper.lines if line.get_label() == "RWP")
    assert line.get_color() == style.colour(2)
    assert "setting" in figures[0]._suptitle.get_text() and "γ: the radius" in caption


def test_losses_far_away_do_not_hide_the_others(tmp_path, figures):
    run = network(0, None, 2)
    distances, losses = run.slices["random"]
    run.slices["random"] = distances, losses + 100 * distances**2
    caption = draw_landscape({"AT": run}, 10, "title", "setting", tmp_path / "x.png")
    assert figures[0].axes[0].get_ylim()[1] < 3 * math.log(10)
    assert "γ" not in caption
