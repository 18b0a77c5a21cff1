"""Natural and robust accuracy over a whole data set, counting every example once."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from rwp_jax.attacks.autoattack.margins import misclassified
from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import ThreatModel, ball
from rwp_jax.data.order import padded_batches
from rwp_jax.distributed import devices
from rwp_jax.losses import carlini_wagner, cross_entropy
from rwp_jax.models.classifier import Classifier
from rwp_jax.models.precision import matmul_precision

# PGD on the cross-entropy and on C&W's loss, with any number of steps: pgd40, cw40.
STEPPED = re.compile(r"(pgd|cw)([1-9]\d{0,4})")


class Sizes(NamedTuple):
    """Radius and step size of an attack, in its norm; arguments of its compiled program."""

    epsilon: Any
    step_size: Any


class FixedAttack(NamedTuple):
    """PGD from a random start that takes all steps on every image and uses the last iterate.

    Attributes:
      steps: number of steps.
      step_size: length of a step, in pixel values for L_inf, in L_2 norm for L_2; may be traced.
      loss: (logits, labels) -> [B], to be maximised.
    """

    steps: int
    step_size: Any
    loss: Callable = cross_entropy


def stepped_attack(name: str, step_size) -> FixedAttack:
    """Returns the attack with a name that STEPPED matches, such as `pgd20` or `cw40`."""
    kind, steps = STEPPED.fullmatch(name).groups()
    return FixedAttack(int(steps), step_size, cross_entropy if kind == "pgd" else carlini_wagner)


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

    The start of an example depends only on `key` and its entry of `indices` [B], not on its batch or
    device.
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
    """Key of the random starts in all evaluations of a run: after epochs and with `--mode evaluate`."""
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
    loss: Callable = cross_entropy,
) -> devices.Mapped:
    """Returns the program that evaluates one batch.

    The attack runs in eval mode from a random start, whose key depends only on the example's index, so
    the number of devices does not change the results. Correctness is decided by a separate forward pass
    at the highest precision.

    Args:
      classifier: network, in float32 or float64.
      norm: norm of the perturbations, `l_inf` or `l_2`.
      steps: number of PGD steps.
      batch_size: global batch size, a multiple of the number of devices.
      mode: mode of `devices.data_parallel`.
      precision: precision of matrix products within the attack, one of `PRECISIONS`.
      mesh: devices to compile for, if not the present ones.
      loss: (logits, labels) -> [B], which the attack maximises.

    Returns:
      (params, batch_stats, images uint8 [N, H, W, C], labels [N], key, Sizes, indices, mask) -> int32
      [2], the numbers of correctly classified examples, clean and attacked. indices and mask of the
      batch are split over devices, all other arguments are replicated.
    """

    def count_correct(params, batch_stats, images, labels, key, sizes, indices, mask):
        dtype = jax.tree.leaves(params)[0].dtype
        x, y = images[indices].astype(dtype) / 255, labels[indices]
        with matmul_precision(precision):
            x_adv = attack_images(
                classifier,
                ball(norm, sizes.epsilon, "madry"),
                FixedAttack(steps, sizes.step_size, loss),
                params,
                batch_stats,
                x,
                y,
                key,
                indices,
                batch_size,
            )
        with matmul_precision("highest"):
            correct = lambda images: ~misclassified(classifier.eval(params, batch_stats, images), y)
            counts = jnp.stack([jnp.sum(correct(x) & mask), jnp.sum(correct(x_adv) & mask)])
        return lax.psum(counts, devices.AXIS)

    split = (False,) * 6 + (True, True)
    return devices.data_parallel(count_correct, split, mode, mesh=mesh)


def make_evaluation(count_correct: Callable, batch_size: int) -> Callable:
    """Returns the evaluation run after each epoch: accuracy on clean and on attacked images.

    Args:
      count_correct: program from `make_count_correct`.
      batch_size: its global batch size.

    Returns:
      (params, batch_stats, images uint8 [N, H, W, C], labels [N], key, Sizes) -> dict of floats
      `natural_accuracy` and `pgd_accuracy` in [0, 1]; all arguments are replicated over devices.
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
