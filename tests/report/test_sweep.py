import numpy as np

from rwp_jax.report import style
from rwp_jax.report.spread import spread
from rwp_jax.report.sweep import Line, Sweep, draw_sweep
from tests.report.test_curves import pixels


def test_a_sweep_shows_both_panels_and_leaves_gaps(tmp_path):
    values = [spread([0.2]), None, spread([0.6, 0.5])]
    steps = [spread([1.0]), None, spread([3.0])]
    line, reference = (
        Line("best", values, 0, marked=True),
        Line("AT", [spread([0.3])], 2, dashed=True),
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
    assert caption.endswith("the best value ringed (best); below, k.")
