"""What XLA's C++ code writes to stderr while it compiles for hardware that is not there."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from rwp_jax.errors import InputError


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """Holds back stderr, and shows it only where compiling fails for a reason that nobody has a line for.

    The compilers look for drivers that are missing and warn of memory that is not enough; the one does not
    matter, and the other is said in a line of ours.
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
