import numpy as np
import pytest

from rwp_jax.report.loss_histogram import draw_losses


@pytest.mark.parametrize("c_min", [0.0, 0.03, 1.7, 50.0, float("inf")])
@pytest.mark.parametrize("largest", [0.0, 3.0])
@pytest.mark.parametrize("method", [0, 2])
def test_any_c_min_can_be_drawn(c_min, largest, method, tmp_path, figures):
    losses = np.linspace(0, largest, 100)
    caption = draw_losses(losses, c_min, method, "title", "setting", tmp_path / "losses.png")
    assert (tmp_path / "losses.png").stat().st_size > 5_000
    assert caption.startswith("Losses of 100 training images")
    bounded = 0 < c_min < float("inf")
    assert ("split at c_min" in caption) == bounded
    assert ("which this run does not use" in caption) == (bounded and method == 0)
    (axes,) = figures[0].axes
    assert len(axes.texts) == bounded
    for text in axes.texts:
        assert text.get_window_extent().y0 >= axes.bbox.y1, "clear of the bars"
