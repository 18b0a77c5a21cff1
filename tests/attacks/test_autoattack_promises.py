"""AutoAttack's guarantees for any network, image, norm and radius."""

import functools
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwp_jax.attacks.autoattack import (
    ApgdCE,
    ApgdDLR,
    ApgdT,
    Fab,
    FabT,
    Square,
    autoattack,
)
from tests.attacks.small_networks import check_promises

ATTACKS = (
    ApgdCE(steps=7, restarts=2),
    ApgdDLR(steps=5),
    ApgdT(targets=2, steps=5),
    Fab(steps=3),
    FabT(targets=2, steps=3, restarts=2),
    Square(queries=30),
)


def case(seed, shape, classes, count):
    """Returns a random float64 network (ReLU or tanh), images with some pixels at 0 or 1, and labels."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((int(np.prod(shape)), 12)) / np.sqrt(np.prod(shape))
    second = rng.standard_normal((12, classes))
    unit = (jax.nn.relu, jnp.tanh)[seed % 2]
    logits_fn = lambda x: (
        unit((x.reshape(len(x), -1).astype(jnp.float64) - 0.5) @ first * 4) @ second
    )
    x = rng.uniform(-0.3, 1.3, (count, *shape)).clip(0, 1).astype(np.float32)
    y = np.asarray(logits_fn(x)).argmax(-1)
    y[: count // 5] = (y[: count // 5] + 1) % classes
    return logits_fn, x, y


def evaluate(seed, shape, classes, count, norm, radius, batch_size):
    """Attacks a case; `radius` is relative to an epsilon at which about half the images are broken."""
    logits_fn, x, y = case(seed, shape, classes, count)
    typical = {"l_inf": 0.1, "l_2": 0.1 * np.sqrt(np.prod(shape)), "l_1": 0.1 * np.prod(shape)}[
        norm
    ]
    epsilon, chosen = radius * typical, list(ATTACKS)
    result = autoattack(
        logits_fn, x, y, norm, epsilon, "custom", attacks=chosen, batch_size=batch_size
    )
    check_promises(result, logits_fn, x, y, norm, epsilon)
    np.testing.assert_array_equal(result.y_adv == y, result.robust)
    return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    seed=st.integers(0, 99),
    height=st.sampled_from([1, 2, 5, 12, 40]),
    width=st.sampled_from([1, 3, 12]),
    channels=st.integers(1, 4),
    classes=st.integers(2, 12),
    count=st.integers(1, 20),
    norm=st.sampled_from(["l_inf", "l_2", "l_1"]),
    radius=st.sampled_from([0, 1e-6, 0.3, 1, 3]),
    batch_size=st.sampled_from([1, 5, 64]),
)
def test_any_network(seed, height, width, channels, classes, count, norm, radius, batch_size):
    shape = (height, width, channels)
    result = evaluate(seed, shape, classes, count, norm, radius, batch_size)
    if radius == 0:
        np.testing.assert_array_equal(result.robust, result.robust_after["clean"])


CASES = [
    (3, (5, 3, 2), 5, 13, "l_inf", 1),
    (4, (1, 1, 3), 2, 13, "l_2", 1),
    (5, (12, 1, 1), 9, 13, "l_1", 1),
]


@pytest.mark.filterwarnings("ignore::rwp_jax.attacks.autoattack.AutoAttackWarning")
def test_batch_sizes_and_devices_decide_nothing():
    """Results are equal for several batch sizes on eight devices and in a process with one device."""
    assert jax.local_device_count() == 8
    code = (
        "import pickle, sys, warnings, jax\n"
        "warnings.simplefilter('ignore')\n"
        "from tests.attacks.test_autoattack_promises import CASES, evaluate\n"
        "assert jax.local_device_count() == 1\n"
        "found = [evaluate(*case, 16).robust_after for case in CASES]\n"
        "sys.stdout.buffer.write(pickle.dumps(found))\n"
    )
    environment = os.environ | {"XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "1", "JAX_ENABLE_X64": "1"}
    alone = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, timeout=600
    )
    robust = []
    for case_of, other in zip(CASES, pickle.loads(alone.stdout), strict=True):
        run = functools.partial(evaluate, *case_of)
        for batch_size in (1, 64):
            found = run(batch_size).robust_after
            assert list(found) == list(other)
            for name in found:
                np.testing.assert_array_equal(found[name], other[name], err_msg=name)
        robust.append(found[name][found["clean"]])
    assert 0.1 < np.concatenate(robust).mean() < 0.9
