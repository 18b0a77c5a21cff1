"""The package's training objectives, and those that users register, by name."""

import inspect
import re
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rwp_jax.attacks.pgd import BN_MODES
from rwp_jax.errors import (
    InputError,
    check_bool,
    check_choice,
    check_function,
    check_number,
    first_line,
    prefixed,
    shown,
)
from rwp_jax.losses import (
    cross_entropy,
    entropy,
    kl_divergence,
    squared_error,
    squared_error_to,
)
from rwp_jax.registry import Registry
from rwp_jax.training.objective import Aux, Objective, mean_over, of_targets


def _classify(train, params, batch, images, smoothing):
    """Returns the cross-entropy on `images`, the loss of adversarial and of plain training, and its Aux."""
    logits, moments = train(params, images)
    loss = of_targets(lambda y: cross_entropy(logits, y, smoothing), batch.y, batch.mixed)
    aux = Aux(loss, (moments,), jnp.argmax(logits, -1) == batch.y, {})
    return batch.weight * mean_over(batch.labelled_share, loss), aux


def _attack_cross_entropy(forward, x, y, mixed=None):
    return lambda logits: of_targets(lambda labels: cross_entropy(logits, labels), y, mixed)


def _attack_kl(forward, x, y, mixed=None):
    """KL(f(x) || f(x')) as a function of f(x'), with f(x) constant."""
    logits_clean = forward(x)
    return lambda logits: kl_divergence(logits_clean, logits)


def _attack_squared_error(forward, x, y, mixed=None):
    """||p(x') - p(x)||^2 as a function of f(x'), with f(x) constant."""
    logits_clean = forward(x)
    return lambda logits: squared_error(logits_clean, logits)


def _trades_per_example(
    beta: float, entropy_weight: float, label_smoothing: float, clean_folds: int
) -> Callable:
    """CE(f(x), y) + beta KL(f(x) || f(x')), plus an entropy of f(x) for unlabelled examples.

    Cross-entropy is averaged over the labelled examples of the batch, entropy over the others, KL over
    all. Gradients also flow through f(x) in the KL. `clean_folds`: how many times the moments of x are
    folded into the running statistics.
    """

    def per_example(train, params, batch):
        logits_adv, moments_adv = train(params, batch.x_adv)
        logits, moments = train(params, batch.x)
        of_label = lambda y: cross_entropy(logits, y, label_smoothing)
        natural = of_targets(of_label, batch.y, batch.mixed)
        robust = kl_divergence(logits, logits_adv)
        gate_loss = natural + beta * robust
        terms = {"natural_loss": mean_over(batch.labelled_share, natural), "robust_loss": robust}
        loss = terms["natural_loss"] + beta * robust
        if entropy_weight:
            unlabelled = jnp.where(batch.y < 0, entropy(logits), 0)
            gate_loss += entropy_weight * unlabelled
            terms["entropy"] = mean_over(1 - batch.labelled_share, unlabelled)
            loss += entropy_weight * terms["entropy"]
        correct = jnp.argmax(logits_adv, -1) == batch.y
        aux = Aux(gate_loss, (moments_adv, *[moments] * clean_folds), correct, terms)
        return batch.weight * loss, aux

    return per_example


def natural(
    beta: float = 0.0, entropy_weight: float = 0.0, label_smoothing: float = 0.0
) -> Objective:
    """Plain training on the clean images: CE(f(x), y)."""
    del beta, entropy_weight
    per_example = lambda train, params, batch: _classify(
        train, params, batch, batch.x, label_smoothing
    )
    return Objective(per_example, None, accuracy="clean_accuracy", mixes_labels=True)


def at(beta: float = 0.0, entropy_weight: float = 0.0, label_smoothing: float = 0.0) -> Objective:
    """Adversarial training (Madry et al., 2018): CE(f(x'), y), which the attack maximises unsmoothed."""
    del beta, entropy_weight
    per_example = lambda train, params, batch: _classify(
        train, params, batch, batch.x_adv, label_smoothing
    )
    return Objective(per_example, _attack_cross_entropy, mixes_labels=True)


# TRADES, RST and MART attack in eval mode; `batch` does not update the running statistics either.
_NOT_UPDATING = ("eval", "batch")


def trades(
    beta: float = 6.0, entropy_weight: float = 0.0, label_smoothing: float = 0.0
) -> Objective:
    """TRADES (Zhang et al., 2019); the attack maximises the KL.

    The authors' script passes x through the network twice in training mode, which updates the running
    statistics twice with equal moments. Folding the moments of one pass in twice has the same effect.
    """
    per_example = _trades_per_example(beta, entropy_weight, label_smoothing, clean_folds=2)
    return Objective(
        per_example,
        _attack_kl,
        uses_unlabelled=True,
        attack_modes=_NOT_UPDATING,
        mixes_labels=True,
    )


def rst(beta: float = 6.0, entropy_weight: float = 0.0, label_smoothing: float = 0.0) -> Objective:
    """Robust self-training (Carmon et al., 2019): TRADES on labelled and pseudo-labelled data."""
    objective = trades(beta, entropy_weight, label_smoothing)
    per_example = _trades_per_example(beta, entropy_weight, label_smoothing, clean_folds=1)
    return objective._replace(per_example=per_example, needs_extra_data=True)


def trades_lse(
    beta: float = 6.0,
    entropy_weight: float = 0.0,
    label_smoothing: float = 0.0,
    clip: float = 0.0,
) -> Objective:
    """TRADES with squared errors of probabilities, not CE and KL (Pang et al., 2022, arXiv:2202.10103).

    ||p(x) - t||^2 + beta max(||p(x') - p(x)||^2 - clip, 0), each summed over classes; the attack maximises
    ||p(x') - p(x)||^2 with p(x) constant. As in the authors' code, label smoothing s makes t = 1 - s on the
    label and s / (C - 1) on the other classes, and x passes through the network before x'.
    """
    del entropy_weight

    def per_example(train, params, batch):
        logits, moments = train(params, batch.x)
        logits_adv, moments_adv = train(params, batch.x_adv)
        # The shares of labels are [B]: classes come first.
        one_hot = lambda y: jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype, axis=0)
        targets = of_targets(one_hot, batch.y, batch.mixed).T
        natural = squared_error_to(logits, targets, label_smoothing)
        robust = squared_error(logits, logits_adv)
        robust = jax.nn.relu(robust - clip) if clip else robust
        terms = {"natural_loss": mean_over(batch.labelled_share, natural), "robust_loss": robust}
        correct = jnp.argmax(logits_adv, -1) == batch.y
        aux = Aux(natural + beta * robust, (moments, moments_adv), correct, terms)
        return batch.weight * (terms["natural_loss"] + beta * robust), aux

    return Objective(
        per_example,
        _attack_squared_error,
        uses_unlabelled=True,
        attack_modes=_NOT_UPDATING,
        mixes_labels=True,
    )


def mart(beta: float = 6.0, entropy_weight: float = 0.0, label_smoothing: float = 0.0) -> Objective:
    """MART (Wang et al., 2020); the attack maximises the cross-entropy.

    BCE(f(x'), y) + beta KL(f(x) || f(x')) (1 - f_y(x)), where BCE is the cross-entropy and
    -log(1 - max_{c != y} f_c(x')). The small constants are those of the authors' code, which passes x
    first and x' second; the moments are folded into the running statistics in that order. Label smoothing
    applies to the cross-entropy within BCE.
    """
    del entropy_weight

    def per_example(train, params, batch):
        logits, moments = train(params, batch.x)
        logits_adv, moments_adv = train(params, batch.x_adv)
        p, q = jax.nn.softmax(logits), jax.nn.softmax(logits_adv)
        is_true = jax.nn.one_hot(batch.y, logits.shape[-1], dtype=logits.dtype)
        wrong = jnp.max(jnp.where(is_true > 0, 0, q), -1)
        boosted = cross_entropy(logits_adv, batch.y, label_smoothing) - jnp.log(
            1.0001 - wrong + 1e-12
        )
        doubt = 1.0000001 - jnp.sum(p * is_true, -1)
        divergence = jnp.sum(p * (jax.nn.log_softmax(logits) - jnp.log(q + 1e-12)), -1)
        # An example without a label has no loss.
        labelled = batch.y >= 0
        boosted, robust = (jnp.where(labelled, loss, 0) for loss in (boosted, doubt * divergence))
        loss = boosted + beta * robust
        correct = jnp.argmax(logits_adv, -1) == batch.y
        terms = {"boosted_loss": boosted, "robust_loss": robust}
        terms = {name: mean_over(batch.labelled_share, values) for name, values in terms.items()}
        aux = Aux(loss, (moments, moments_adv), correct, terms)
        return batch.weight * mean_over(batch.labelled_share, loss), aux

    return Objective(per_example, _attack_cross_entropy, attack_modes=_NOT_UPDATING)


_OWN = {
    "natural": natural,
    "at": at,
    "trades": trades,
    "trades_lse": trades_lse,
    "rst": rst,
    "mart": mart,
}
OBJECTIVES = Registry("objective", _OWN)
# Settings that not every builder takes, because they are newer than some or for some objectives only.
_OPTIONAL = ("label_smoothing", "clip")


def register_objective(name: str, builder: Callable[..., Objective]) -> None:
    """Makes a user-defined objective available as `config.objective.name`.

    Args:
      name: name of the objective; the package's own names are taken.
      builder: called with all of config.objective except `name` as keyword arguments, including `beta`
        and `entropy_weight`, and `label_smoothing` and `clip`, each if it takes it or the value is not 0;
        returns an `Objective`. It checks ranges itself and raises InputError.

    Raises:
      InputError: if the name is taken or the builder cannot be called.
    """
    OBJECTIVES.register(name, builder, sys._getframe(1).f_globals)


def make_objective(name: str, **settings: float) -> Objective:
    """Builds the objective `name`.

    Args:
      name: `natural`, `at`, `trades`, `trades_lse`, `rst`, `mart`, or a name registered with
        `register_objective`.
      settings: `beta`, the weight of the KL (1/lambda in the TRADES paper); `entropy_weight`, the weight of
        the entropy of unlabelled examples in TRADES and RST; `label_smoothing` of the loss with labels;
        `clip` of `trades_lse`; and the settings of a registered objective. The package's objectives take
        the first three, and every config has the first four.

    Raises:
      InputError: if the name is unknown, the objective does not take a setting, a setting of the package's
        objectives is outside [0, inf), or [0, 1) for `label_smoothing`, or the builder fails.
    """
    check_choice("name", name, OBJECTIVES)
    own = OBJECTIVES.origin(name) is None
    for key, value in settings.items() if own else ():
        if key == "label_smoothing":
            check_number(key, value, "in [0, 1)", lambda number: 0 <= number < 1)
        else:
            check_number(key, value, "in [0, inf)", lambda number: 0 <= number < float("inf"))
    signature = inspect.signature(OBJECTIVES[name])
    try:
        settings = _taken(signature, settings)
        signature.bind(**settings)
    except TypeError as error:
        raise InputError(f"name={name!r} does not fit its settings: {error}") from None
    try:
        objective = OBJECTIVES[name](**settings)
    except (Exception, SystemExit) as error:  # whatever the user's builder raises
        if own or isinstance(error, InputError):
            raise
        described = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"name={name!r}: its builder fails ({described})") from error
    if not isinstance(objective, Objective):
        given = type(objective).__name__
        raise InputError(f"name={name!r}: its builder returns a {given}, must return an Objective")
    with prefixed(f"name={name!r}: "):
        _check_fields(objective)
    return objective


def _taken(signature: inspect.Signature, settings: dict[str, float]) -> dict[str, float]:
    """Returns the settings without optional ones that are 0 and that a function of this signature lacks."""
    parameters = signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return settings
    lacked = [key for key in _OPTIONAL if key not in parameters and not settings.get(key, True)]
    return {key: value for key, value in settings.items() if key not in lacked}


def _check_fields(objective: Objective) -> None:
    """Raises InputError if a field of an Objective from the user's builder is invalid."""
    check_function("per_example", objective.per_example)
    if objective.attack_loss is not None:
        check_function("attack_loss", objective.attack_loss)
    for field in ("uses_unlabelled", "needs_extra_data", "mixes_labels"):
        check_bool(field, getattr(objective, field))
    modes = objective.attack_modes
    if not isinstance(modes, tuple | list) or not modes or any(m not in BN_MODES for m in modes):
        raise InputError(f"attack_modes={shown(modes)} must be some of {', '.join(BN_MODES)}")
    if not isinstance(objective.accuracy, str) or not re.fullmatch(r"\w+", objective.accuracy):
        raise InputError(f"accuracy={shown(objective.accuracy)} must be a word, the metric's name")
