"""Natural and robust accuracy over a whole data set, every example counted once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import ThreatModel, ball
from rwp_jax.data.order import padded_batches
from rwp_jax.distributed import devices
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import Classifier
from rwp_jax.models.precision import matmul_precision


class Sizes(NamedTuple):
    """Lengths in an attack, in pixels for L_inf, in L_2 norm for L_2; arguments of its compiled program."""

    epsilon: Any
    step_size: Any


class FixedAttack(NamedTuple):
    """PGD from a random start, always all steps, on every image: the last point counts.

    Attributes:
      steps: how many.
      step_size: in pixels for L_inf, in L_2 norm for L_2; may be traced.
      loss: (logits, labels) -> [B], maximised.
    """

    steps: int
    step_size: Any
    loss: Callable = cross_entropy


def attack_images(
    classifier: Classifier,
    threat_model: ThreatModel,
    attack: FixedAttack,
    params,
    batch_stats,
    x,
    y,
    key,
    indices,
    global_batch_size: int,
):
    """Attacks images [B, H, W, C] with labels y [B] in eval mode.

    A start depends on key and the example's index [B] alone, not on its batch or device.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
    delta, _ = pgd_steps(
        forward_in_mode(classifier, params, "eval"),
        lambda logits: attack.loss(logits, y),
        threat_model,
        x,
        threat_model.sample(keys, x),
        batch_stats,
        step_size=attack.step_size,
        steps=attack.steps,
        global_batch_size=global_batch_size,
    )
    return x + delta


def start_key(seed: int):
    """Key of the starts in all evaluations of a run, after its epochs and by `--mode evaluate`."""
    return jax.random.split(jax.random.key(seed), 3)[2]


def make_count_correct(
    classifier: Classifier,
    norm: str,
    *,
    steps: int,
    batch_size: int,
    mode: str,
    precision: str = "default",
    mesh: Mesh | None = None,
) -> devices.Mapped:
    """Makes the program of an evaluation, for one batch.

    The attack runs in eval mode from a random start. Its key depends on the example's index alone, so
    that the number of devices changes no verdict. Verdicts are of fresh forwards in full float32.

    Args:
      classifier: network; give it float32 or float64.
      norm: `l_inf` or `l_2`, of the perturbations.
      steps: PGD steps.
      batch_size: global, a multiple of the number of devices.
      mode: of `devices.data_parallel`.
      precision: of matrix products within the attack, one of `PRECISIONS`.
      mesh: other devices, to compile for.

    Returns:
      (params, batch_stats, images uint8 [N, H, W, C], labels [N], key, Sizes, indices, mask) -> int32
      [2], how many examples are classified correctly, clean and attacked; indices and mask of the batch
      are split over devices, all else is replicated.
    """

    def count_correct(params, batch_stats, images, labels, key, sizes, indices, mask):
        dtype = jax.tree.leaves(params)[0].dtype
        x, y = images[indices].astype(dtype) / 255, labels[indices]
        with matmul_precision(precision):
            x_adv = attack_images(
                classifier,
                ball(norm, sizes.epsilon, "madry"),
                FixedAttack(steps, sizes.step_size),
                params,
                batch_stats,
                x,
                y,
                key,
                indices,
                batch_size,
            )
        with matmul_precision("highest"):
            correct = lambda images: (
                jnp.argmax(classifier.eval(params, batch_stats, images), -1) == y
            )
            counts = jnp.stack([jnp.sum(correct(x) & mask), jnp.sum(correct(x_adv) & mask)])
        return lax.psum(counts, devices.AXIS)

    split = (False,) * 6 + (True, True)
    return devices.data_parallel(count_correct, split, mode, mesh=mesh)


def make_evaluation(count_correct: Callable, batch_size: int) -> Callable:
    """Makes the evaluation that runs after each epoch: clean accuracy and PGD on the cross-entropy.

    Args:
      count_correct: see `make_count_correct`.
      batch_size: its batch size.

    Returns:
      (params, batch_stats, images uint8 [N, H, W, C], labels [N], key, Sizes) -> dict of floats
      `natural_accuracy` and `pgd_accuracy` in [0, 1]; all arguments replicated over devices.
    """

    def evaluate(params, batch_stats, images, labels, key, sizes):
        counts = []
        mine = devices.part_of_this_host(batch_size)
        for indices, mask in padded_batches(len(labels), batch_size):
            fixed = params, batch_stats, images, labels, key, sizes
            counts.append(count_correct(*fixed, indices[mine], mask[mine]))
        natural, robust = np.sum(jax.device_get(counts), 0) / len(labels)
        return {"natural_accuracy": float(natural), "pgd_accuracy": float(robust)}

    return evaluate
