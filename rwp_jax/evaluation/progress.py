"""Progress of an attack: a bar on a terminal, otherwise a line per minute and one at the end."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

_SECONDS = 60  # between lines
_LAYOUT = "{desc:<10} {percentage:3.0f}%{postfix} |{bar:20}| [{elapsed}<{remaining}]"


@contextlib.contextmanager
def shown(name: str) -> Iterator[Callable[[float, str], None]]:
    """Shows the progress of an attack.

    Args:
      name: name of the attack.

    Yields:
      (share done in [0, 1], text with the results so far) -> None.
    """
    if sys.stderr.isatty():
        with tqdm(total=1, desc=name, bar_format=_LAYOUT) as bar:

            def draw(done: float, found: str) -> None:
                bar.n = done
                bar.set_postfix_str(found)

            yield draw
        return
    began = last = time.monotonic()

    def write(done: float, found: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= 1 or now - last >= _SECONDS:
            last = now
            line = f"{name}: {done:.0%} done in {now - began:.0f} s, {found}"
            print(line, file=sys.stderr, flush=True)

    yield write
