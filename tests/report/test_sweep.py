import numpy as np

from rwp_jax.report import style
from rwp_jax.report.spread import Spread, spread
from rwp_jax.report.sweep import Line, Sweep, draw_sweep
from tests.report.test_curves import pixels


def test_a_sweep_shows_both_panels_and_leaves_gaps(tmp_path):
    values = [spread([0.2]), None, spread([0.6, 0.5])]
    steps = [spread([1.0]), None, spread([3.0])]
    line, reference = (
        Line("best", values, 0, marked=True),
        Line("AT", [spread([0.3])], 2, "best"),
    )
    sweep = Sweep(
        "c_min", ["0", "1", "2"], [line], [reference], ("mean k", [Line("", steps, 3)]), "k"
    )
    caption = draw_sweep(sweep, "title", "setting", tmp_path / "sweep.png")
    upper, lower, across = (
        pixels(tmp_path / "sweep.png", style.COLOURS[index]) for index in (0, 3, 2)
    )
    assert min(map(len, (upper, lower, across))) > 50
    assert np.median(upper[:, 0]) < np.median(lower[:, 0]), "accuracies above, steps below"
    assert caption.startswith("Accuracy under PGD on test images over c_min")
    assert caption.endswith(
        "the ring and the number beside it are the highest mean of best; below, k."
    )


def test_error_bars_are_whole_and_methods_apart(tmp_path, figures):
    wide = [Spread(0.2, None, 5, -0.04, 0.4), Spread(0.5, None, 5, 0.1, 0.6)]
    accuracies = [Line(name, wide, index) for index, name in ((1, "AWP"), (2, "RWP"))]
    points = [value.scaled(100) for value in wide]
    sweep = Sweep("gamma", ["1", "8"], accuracies, [], ("gap", [Line("", points, 1)]), "gap")
    draw_sweep(sweep, "title", "setting", tmp_path / "sweep.png")
    draw_sweep(
        sweep._replace(second=("natural", accuracies), percent=True), "", "", tmp_path / "x.png"
    )
    for axes in (*figures[0].axes, *figures[1].axes):
        assert axes.get_xlim() == (-0.5, 1.5)
    assert figures[0].axes[1].get_ylim()[0] < -4.5, "the end of an error bar below zero"
    places = [
        line.get_xdata()[0] for line in figures[1].axes[1].lines if line.get_linestyle() == "-"
    ]
    assert len(set(places)) == 2, "one beside the other in the lower panel too"


def test_unlike_settings_are_not_joined(tmp_path, figures):
    line = Line("AT", [spread([0.2]), spread([0.3])], 0)
    sweep = Sweep("data", ["a", "b"], [line], [], ("k", [line]), "k", joined=False)
    caption = draw_sweep(sweep, "title", "setting", tmp_path / "sweep.png")
    assert {line.get_linestyle() for line in figures[0].axes[0].lines} == {"None"}
    assert "ring" not in caption
