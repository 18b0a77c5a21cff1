import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax import parallel
from rwp_jax.checkpoint import Checkpoints


def state(epoch):
    return {"w": jnp.full((3, 2), epoch, jnp.float64), "step": jnp.asarray(epoch, jnp.int32)}


def record(epoch, accuracy):
    return {"epoch": epoch, "pgd_accuracy": accuracy}


def test_keeps_and_finds_last_and_best(tmp_path):
    accuracies = [0.1, 0.5, 0.3, 0.5, 0.2]  # the earlier of two best counts
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.find("last") is None and checkpoints.find("best") is None
    for epoch, accuracy in enumerate(accuracies):
        checkpoints.save(state(epoch), record(epoch, accuracy))
    checkpoints.close()

    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.find("last") == record(4, 0.2)
    assert checkpoints.find("best") == record(1, 0.5)
    like = parallel.replicate(state(0))
    for epoch in (1, 4):
        assert checkpoints.path(epoch).is_dir()
        restored = checkpoints.restore(epoch, like)
        np.testing.assert_array_equal(restored["w"], state(epoch)["w"])
        assert restored["step"] == epoch and restored["step"].dtype == jnp.int32
        assert restored["w"].sharding == like["w"].sharding
    checkpoints.close()
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.is_dir())
    assert kept == [1, 4]


def test_saving_copies_before_it_returns(tmp_path):
    """The next step donates the buffers that are being saved."""
    checkpoints = Checkpoints(tmp_path)
    current = parallel.replicate(state(7))
    checkpoints.save(current, record(0, 0.1))
    jax.tree.map(lambda leaf: leaf.delete(), current)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(0, state(0))
    checkpoints.close()
    np.testing.assert_array_equal(restored["w"], state(7)["w"])
