import contextlib

import pytest

from rwp_jax.report import style


@pytest.fixture
def figures(monkeypatch):
    """Returns a list of the figures that are drawn and saved during the test."""
    drawn, panels = [], style.panels

    @contextlib.contextmanager
    def recorded(*arguments, **keywords):
        with panels(*arguments, **keywords) as (figure, axes):
            drawn.append(figure)
            yield figure, axes
        figure.draw_without_rendering()  # restores extents in the figure's pixels after saving

    monkeypatch.setattr(style, "panels", recorded)
    return drawn
