import numpy as np
import pytest
from PIL import Image

from configs import digits_at
from rwp_jax.report.figures import Sweep, draw_learning_curves, draw_sweep
from rwp_jax.report.published import PublishedCurve
from rwp_jax.report.results import read_result
from rwp_jax.report.spread import spread
from tests.small import write_run

COLOURS = {
    "blue": (31, 119, 180),
    "orange": (255, 127, 14),
    "red": (214, 39, 40),
    "green": (44, 160, 44),
}


def pixels(path, colour: str) -> np.ndarray:
    """Rows and columns [N, 2] of the pixels of a colour."""
    picture = np.asarray(Image.open(path).convert("RGB"), int)
    return np.argwhere(np.abs(picture - COLOURS[colour]).max(-1) < 12)


@pytest.fixture
def result(tmp_path):
    run = write_run(tmp_path / "run", digits_at.get_config(), [0.2, 0.4, 0.6])
    return read_result(run)


def test_published_curves_end_where_the_runs_do(result, tmp_path):
    published = PublishedCurve(
        "x", "cifar10", "linf", list(range(1, 201)), [0.5] * 200, [0.3] * 200
    )
    path = tmp_path / "curves.png"
    draw_learning_curves({"ours": [result]}, [published], "title", path)
    ours, theirs = pixels(path, "blue"), pixels(path, "orange")
    assert len(ours) > 200 and len(theirs) > 50
    assert abs(int(ours[:, 1].max()) - int(theirs[:, 1].max())) < 40


def test_a_sweep_shows_both_panels_and_leaves_gaps(tmp_path):
    values = [spread([0.2]), None, spread([0.6, 0.5])]
    steps = [spread([1.0]), None, spread([3.0])]
    sweep = Sweep("c_min", ["0", "1", "2"], {"best": values}, {"AT, best": None}, ("k", steps))
    draw_sweep(sweep, "title", tmp_path / "sweep.png")
    red, green = (pixels(tmp_path / "sweep.png", colour) for colour in ("red", "green"))
    assert len(red) > 50 and len(green) > 50
    above = np.median(red[:, 0]) < np.median(green[:, 0])
    assert above, "accuracies above, steps below; the legend has some red too"
