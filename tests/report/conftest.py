import contextlib

import pytest

from rwp_jax.report import style


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn and saved."""
    drawn, panels = [], style.panels

    @contextlib.contextmanager
    def recorded(*arguments, **keywords):
        with panels(*arguments, **keywords) as (figure, axes):
            drawn.append(figure)
            yield figure, axes
        figure.draw_without_rendering()  # extents are in the figure's pixels again, not the file's

    monkeypatch.setattr(style, "panels", recorded)
    return drawn
