"""The progress bar of AutoAttack on terminals and in files."""

import io

import pytest

from rwp_jax.attacks.autoattack import Progress
from rwp_jax.attacks.autoattack.progress import listener


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bar(is_terminal, monkeypatch):
    stream = Stream(is_terminal)
    monkeypatch.setattr("sys.stderr", stream)
    show = listener(True)
    for index, name in enumerate(("apgd-ce", "square")):
        for step in range(101):
            show(Progress(name, index, 2, step / 100, 50 - step // 10, 50))
    shown = stream.getvalue()
    assert shown.endswith("square (2 of 2) [####################] 100%, 40 of 50 images robust\n")
    if is_terminal:
        assert shown.count("\r") == 202 and shown.count("\n") == 2
    else:
        lines = shown.splitlines()
        assert "\r" not in shown and len(lines) == 22
        assert lines[5] == "apgd-ce (1 of 2) [##########          ]  50%, 45 of 50 images robust"
