"""The random keys of AutoAttack: no two draws share one."""

import jax

from rwp_jax.attacks.autoattack import ApgdCE, Square, autoattack, doubts
from rwp_jax.attacks.autoattack.suite import NUMBERS
from tests.attacks.small_networks import images, labels, network

STEPS, COUNT = 3, 24


def test_every_evaluation_of_a_randomised_network_has_a_key_of_its_own(monkeypatch):
    """Keys differ between verdicts, attack steps and devices, and from the keys of searches."""
    # The checks for doubts compare evaluations that share a key on purpose.
    monkeypatch.setattr(doubts, "about_network", lambda *_: [])
    monkeypatch.setattr(doubts, "no_gradient", lambda *_: [])
    plain, x = network(), images(COUNT)
    y, found = labels(plain, x), []

    def noisy(x, key):
        jax.debug.callback(
            lambda data: found.append(tuple(data.tolist())), jax.random.key_data(key)
        )
        return plain(x + 0.01 * jax.random.normal(key, x.shape))

    attacks = [ApgdCE(restarts=2, steps=STEPS), Square(queries=STEPS)]
    autoattack(noisy, x, y, "l_inf", 0.02, "custom", attacks=attacks, key=0, randomized=True)
    jax.effects_barrier()
    by_devices = jax.local_device_count()
    assert len(found) > (STEPS + 2) * len(attacks) * by_devices
    assert len(set(found)) == len(found)

    fold, key = jax.random.fold_in, jax.random.key(0)
    searches = {
        tuple(jax.random.key_data(fold(fold(fold(key, number), image), search)).tolist())
        for number in NUMBERS.values()
        for image in range(COUNT)
        for search in range(20)
    }
    assert len(searches) == len(NUMBERS) * COUNT * 20 and not searches & set(found)
