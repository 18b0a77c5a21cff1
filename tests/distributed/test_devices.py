import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rwp_jax.distributed import devices
from rwp_jax.errors import InputError


@pytest.mark.parametrize("mode", devices.MODES)
def test_donating_a_replica_leaves_the_original(mode):
    original = {"w": jnp.arange(4.0)}
    add = devices.data_parallel(
        lambda tree, x: {"w": tree["w"] + lax.psum(x.sum(), devices.AXIS)},
        (False, True),
        mode,
        donate=(0,),
    )
    replica = devices.replicate(original)
    for _ in range(2):
        replica = add(replica, np.arange(16.0))
    np.testing.assert_array_equal(replica["w"], np.arange(4.0) + 240)
    np.testing.assert_array_equal(original["w"], np.arange(4.0))


@pytest.mark.parametrize("batch_size", [12, 0, -8])
def test_batch_sizes_must_split_evenly(batch_size):
    with pytest.raises(InputError, match=f"k={batch_size} must be a positive multiple .* 8"):
        devices.check_batch_size("k", batch_size)


def test_batches_that_no_memory_holds():
    with pytest.raises(InputError, match="k=2147483648 must be at most 1048576"):
        devices.check_batch_size("k", 2**31)


def test_unknown_mode():
    with pytest.raises(InputError, match="config.parallel='jit' must be one of pmap, shard_map"):
        devices.data_parallel(lambda x: x, (False,), "jit")
