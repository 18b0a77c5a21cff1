"""What --mode inspect says, as the tests check it."""

import pytest

from rwp_jax.errors import InputError
from rwp_jax.files import file_digests
from rwp_jax.inspection.findings import Unsound
from rwp_jax.inspection.inspect import inspect


def said(path, capsys, **options):
    """Returns the lines about a path, and checks that nothing was written."""
    before = file_digests(path.parent)
    inspect(str(path), **options)
    assert file_digests(path.parent) == before
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: ") and "unsound" not in out
    return out


def unsound(path, capsys, message):
    with pytest.raises(Unsound) as error:
        inspect(str(path))
    assert str(error.value).startswith(f"{path} is unsound: ") and "\n" not in str(error.value)
    assert message in str(error.value)
    out = capsys.readouterr().out
    assert "no: see below" in out
    return out


def refused(path, message):
    with pytest.raises(InputError) as error:
        inspect(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("path=")
