import numpy as np
import pytest

from rwp_jax.data import writing
from rwp_jax.errors import InputError
from rwp_jax.inspection.findings import Unsound
from rwp_jax.inspection.inspect import inspect


def test_a_set_is_described_and_checked(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "1m.npz", image=images, label=np.arange(20) % 4 - 1)
    inspect(str(tmp_path / "1m.npz"))
    out = capsys.readouterr().out
    assert "extra images with pseudo-labels" in out and "extra_data.path=" in out
    writing.write_set(tmp_path / "1m.npz", tmp_path / "set")
    inspect(str(tmp_path / "set"))
    out = capsys.readouterr().out
    assert "set: extra images on disk" in out and "uint8 [20, 8, 8, 3], 0.00 GB" in out
    assert "3 classes (no label: 5, 0: 5, 1: 5, 2: 5)" in out and "sound" in out
    with (tmp_path / "set/images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([images[-1, -1, -1, -1] ^ 1]))
    with pytest.raises(Unsound, match="image 19 of 20 is not the one that was written"):
        inspect(str(tmp_path / "set"))
    (tmp_path / "set/labels.npy").unlink()
    with pytest.raises(InputError, match=r"path=.*labels\.npy cannot be read"):
        inspect(str(tmp_path / "set"))
