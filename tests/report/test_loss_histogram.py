import numpy as np
import pytest

from rwp_jax.report.loss_histogram import draw_losses


@pytest.mark.parametrize("c_min", [0.0, 0.03, 1.7, 50.0, float("inf")])
@pytest.mark.parametrize("largest", [0.0, 3.0])
def test_any_c_min_can_be_drawn(c_min, largest, tmp_path):
    losses = np.linspace(0, largest, 100)
    caption = draw_losses(losses, c_min, True, "title", "setting", tmp_path / "losses.png")
    assert (tmp_path / "losses.png").stat().st_size > 5_000
    assert caption.startswith("Losses of 100 training images")
    assert ("split at c_min" in caption) == (0 < c_min < float("inf"))
