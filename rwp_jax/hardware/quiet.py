"""Hides the stderr output of XLA's C++ code while it compiles for absent hardware."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from rwp_jax.errors import InputError


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """Holds stderr back, and shows it only if compilation fails with anything but an InputError.

    The compilers warn about missing drivers, which does not matter here, and about insufficient memory,
    which DoesNotFit reports.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = False
        try:
            yield
        except InputError:
            raise
        except BaseException:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed:
                held.seek(0)
                os.write(2, held.read())
