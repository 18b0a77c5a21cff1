"""The interface of training objectives: one per-example loss for the gate, the ascent and the update."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rwp_jax.attacks.pgd import BN_MODES


class Mixed(NamedTuple):
    """Second labels of images that CutMix made of two.

    Attributes:
      other: labels int32 [B] of the smaller shares, not -1.
      share: floating point [B] in [1/2, 1], the larger shares, of `Batch.y` in the targets.
    """

    other: jnp.ndarray
    share: jnp.ndarray


class Batch(NamedTuple):
    """The part of a batch on one device.

    Attributes:
      x: clean images, floating point [B, H, W, C] in [0, 1].
      x_adv: attacked images, as x.
      y: labels int32 [B], -1 for "no label"; with CutMix, those of the larger shares.
      weight: weight of each example's loss, floating point [B] or one number for all.
      labelled_share: fraction of the *global* batch that has a label, from which each device computes
        means over the labelled examples without communication.
      mixed: labels of the other shares; None without CutMix.
    """

    x: jnp.ndarray
    x_adv: jnp.ndarray
    y: jnp.ndarray
    weight: jnp.ndarray | float = 1.0
    labelled_share: jnp.ndarray | float = 1.0
    mixed: Mixed | None = None


class Aux(NamedTuple):
    """Results of a pass over the batch, in addition to the loss.

    Attributes:
      gate_loss: [B] unweighted loss of each example, which the weight perturbation's gate tests.
      moments: batch moments in the order in which the reference's training forwards fold them into the
        running statistics; each entry is folded once. If `train` is an attack mode, the first entry is that
        of x_adv.
      correct: [B] bool, whether the images trained on are classified as y.
      terms: name -> [B] values, whose means are logged as metrics, such as the parts of the loss.
    """

    gate_loss: jnp.ndarray
    moments: tuple
    correct: jnp.ndarray
    terms: dict


def own_loss(loss, aux: Aux):
    """Returns the unweighted losses; the `gate_loss` of `perturb_and_differentiate` for objectives."""
    del loss
    return aux.gate_loss


class Objective(NamedTuple):
    """A training objective: the loss to minimise and the loss that the attack maximises.

    Attributes:
      per_example: (train, params, Batch) -> (loss [B], Aux), where train is `Classifier.train`. The
        mean loss is minimised.
      attack_loss: (forward, x, y) -> (logits of the attacked images [B, classes] -> [B]), where forward
        maps images to logits in the attack's BN mode; None for no attack (x_adv is x). With CutMix, it is
        called with `Batch.mixed` as the fourth argument.
      accuracy: name of `Aux.correct` in the metrics.
      uses_unlabelled: whether examples without a label contribute to the loss.
      needs_extra_data: whether the objective makes sense only with pseudo-labelled data.
      attack_modes: BN modes (see `pgd.BN_MODES`) that are allowed in the attack; others are refused.
      mixes_labels: whether both functions use `Batch.mixed`; CutMix is refused otherwise.
    """

    per_example: Callable
    attack_loss: Callable | None
    accuracy: str = "robust_accuracy"
    uses_unlabelled: bool = False
    needs_extra_data: bool = False
    attack_modes: tuple[str, ...] = BN_MODES
    mixes_labels: bool = False


def attack_labels(y, mixed: Mixed | None) -> tuple:
    """Returns what follows (forward, x) in a call of `Objective.attack_loss`."""
    return (y,) if mixed is None else (y, mixed)


def mean_over(share, values):
    """Scales values [B], 0 outside a `share` of the batch, so that their mean is that share's mean."""
    return values / jnp.where(share > 0, share, 1)


def of_targets(loss: Callable, y, mixed: Mixed | None):
    """Returns loss(y) [B]; with CutMix, the mean of the losses of both labels by their shares.

    This is the loss of the mixed target if the loss is linear in the target, as a cross-entropy is.
    """
    if mixed is None:
        return loss(y)
    return mixed.share * loss(y) + (1 - mixed.share) * loss(mixed.other)
