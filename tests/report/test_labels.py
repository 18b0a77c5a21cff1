import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from rwp_jax.report import style


@pytest.mark.parametrize("x", [0, 50, 100])
@pytest.mark.parametrize("height", [0.0, 50.0, 100.0])
def test_values_are_apart_and_inside_the_frame(x, height, tmp_path, figures):
    with style.panels(tmp_path / "x.png", 2.0) as (_, (axes,)):
        for index in range(4):
            value = abs(height - index / 2)
            axes.plot([0, 100], [value, value], color=style.colour(index), marker="o")
            style.mark_best(axes, [x], [value], index)
        axes.set_xlim(0, 100)
        style.show_percent(axes, [0, 100])
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) == 4
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for index, (text, box) in enumerate(zip(axes.texts, boxes, strict=True)):
        assert axes.bbox.contains(*box.p0) and axes.bbox.contains(*box.p1)
        assert text.get_color() == style.ink(index)
        assert text.arrow_patch.get_visible() == (sum(c**2 for c in text.get_position()) > 13**2)


@pytest.mark.parametrize("x", [0, 50, 100])
@pytest.mark.parametrize("height", [0.0, 50.0, 100.0])
def test_no_leader_crosses_another_value(x, height, tmp_path):
    with style.panels(tmp_path / "x.png", 2.0) as (_, (axes,)):
        for index in range(3):  # four do not fit into a corner
            axes.plot([0, 100], [abs(height - index)] * 2, marker="o")
            style.mark_best(axes, [x], [abs(height - index)], index)
        axes.set_xlim(0, 100)
        style.show_percent(axes, [0, 100])
    axes.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    for (text, box), (_, other) in itertools.permutations(zip(axes.texts, boxes, strict=True), 2):
        point, middle = axes.transData.transform(text.xy), (box.p0 + box.p1) / 2
        assert not any(other.contains(*at) for at in np.linspace(point, middle))


def test_a_value_alone_is_beside_its_point_without_a_leader(tmp_path):
    with style.panels(tmp_path / "x.png", 2.0) as (_, (axes,)):
        axes.plot([0, 1, 2], [40, 60, 50], "o-")
        style.mark_best(axes, [0, 1, 2], [40, 60, 50], 0)
        style.show_percent(axes, [0, 100])
    (text,) = axes.texts
    assert text.get_text() == "60.0" and not text.arrow_patch.get_visible()
