"""Computes the arrays of each kind of recorded case with this library's own functions.

A runner takes a `Case` and returns arrays under the names of the recorded ones.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.errors import InputError
from rwp_jax.losses import carlini_wagner, cross_entropy
from rwp_jax.parity.case import Case
from rwp_jax.parity.recipe import CaseNetwork, make_network, make_recipe
from rwp_jax.pytorch.state_dict import to_state_dict
from rwp_jax.training.objective import Batch
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.train_step import TrainState, attack_and_update
from rwp_jax.training.weight_ascent import perturb_and_differentiate
from rwp_jax.training.weight_perturbation import (
    is_perturbed,
    make_weight_perturbation,
    perturbed_norm,
)

HEADS = ("linear.weight", "fc.weight", "logits.weight")
WHOLE_IMAGES = 2  # number of perturbations recorded whole; the batch is recorded as a digest


def digest(array) -> np.ndarray:
    """Returns [sum, L2 norm, up to 8 entries spread over the flattened array]."""
    flat = np.asarray(array, np.float64).ravel()
    entries = flat[np.linspace(0, flat.size - 1, min(8, flat.size)).astype(int)]
    return np.concatenate([[flat.sum(), np.sqrt((flat**2).sum())], entries])


def _digests(prefix: str, entries) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": digest(value) for name, value in entries.items()}


def _delta(name: str, delta) -> dict[str, np.ndarray]:
    return {name: np.asarray(delta)[:WHOLE_IMAGES], f"{name}_digest": digest(delta)}


def _num_classes(case: Case) -> int:
    for name in ("logits_eval", "logits"):
        if name in case.recorded:
            return case.recorded[name].shape[-1]
    keys = case.settings.get("keys", {})
    heads = [shape[0] for name, shape in keys.items() if name in HEADS]
    return heads[0] if heads else case.settings.get("classes", 10)  # every recorded case has 10


def _network(case: Case) -> CaseNetwork:
    """Builds the case's network with its weights, in float64."""
    step = 0 if "image_seeds" in case.settings or "x0" in case.recorded else None
    return make_network(case.settings, case.images(step).shape[1:], _num_classes(case))


def _running(case: Case, batch_stats):
    return to_state_dict(case.settings["model"], batch_stats, "batch_stats")


def _perturbed_entries(case: Case, v):
    entries = to_state_dict(case.settings["model"], v)
    return {name: value for name, value in entries.items() if is_perturbed(value)}


def _check_keys(case: Case, entries) -> None:
    """Raises InputError unless the recorded state dict has our entries, in name and shape."""
    theirs = {name: tuple(shape) for name, shape in case.settings["keys"].items()}
    theirs = {n: shape for n, shape in theirs.items() if not n.endswith(".num_batches_tracked")}
    ours = {name: value.shape for name, value in entries.items()}
    for name in theirs | ours:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"entry {name} is {theirs.get(name, 'missing')} in the case's keys, "
                f"{ours.get(name, 'missing')} in {case.settings['model']}"
            )


def run_forward(case: Case) -> dict:
    classifier, params, batch_stats = _network(case)
    if "keys" in case.settings:
        _check_keys(
            case, to_state_dict(case.settings["model"], params) | _running(case, batch_stats)
        )
    x = jnp.asarray(case.images())
    logits, moments = jax.jit(classifier.train)(params, x)
    return {
        "logits_eval": jax.jit(classifier.eval)(params, batch_stats, x),
        "logits_train": logits,
        **_digests("after", _running(case, classifier.fold(batch_stats, moments))),
    }


LOSSES = {"CrossEntropyLoss": cross_entropy, "CWLoss": carlini_wagner}


def _compiled_pgd(case: Case, network: CaseNetwork, bn: str):
    """Returns the attack, (x, y, start, steps) -> (delta, batch_stats), and the forward pass, compiled."""
    settings = case.settings
    threat_model = make_threat_model(settings["norm"], settings["eps"])
    maximised = LOSSES[settings.get("loss", "CrossEntropyLoss")]
    forward = forward_in_mode(network.classifier, network.params, bn)

    @jax.jit
    def attack(x, y, start, steps):
        loss = lambda logits: maximised(logits, y)
        alpha = settings["alpha"]
        stats = network.batch_stats
        return pgd_steps(forward, loss, threat_model, x, start, stats, step_size=alpha, steps=steps)

    return attack, jax.jit(forward)


def run_attack(case: Case) -> dict:
    network = _network(case)
    attack, forward = _compiled_pgd(case, network, case.settings["bn"])
    x, y = jnp.asarray(case.images()), jnp.asarray(case.labels())
    start = jnp.asarray(case.start(np.asarray(x)))
    ours = {}
    for steps in sorted(case.settings["steps"]):
        delta, batch_stats = attack(x, y, start, steps)
        ours |= _delta(f"delta{steps}", delta)
    _, batch_stats = forward(x + delta, batch_stats)  # the reference scores its final delta
    return ours | _digests("after", _running(case, batch_stats))


def run_eval(case: Case) -> dict:
    network = _network(case)
    attack, forward = _compiled_pgd(case, network, "eval")
    x, y = jnp.asarray(case.images()), jnp.asarray(case.labels())
    start = jnp.asarray(case.start(np.asarray(x)))
    delta, _ = attack(x, y, start, case.settings["pgd_steps"])
    logits, _ = forward(x + delta, network.batch_stats)
    return _delta("delta", delta) | {"logits": logits, "correct": logits.argmax(-1) == y}


def _perturb_clean(case: Case, perturbation):
    """Returns the function max_steps -> Perturbed for the cross-entropy on the clean images."""
    classifier, params, _ = _network(case)
    x, y = jnp.asarray(case.images()), jnp.asarray(case.labels())
    per_example = make_objective("at").per_example
    loss = lambda w: per_example(classifier.train, w, Batch(x, x, y))
    return jax.jit(
        lambda steps: perturb_and_differentiate(loss, params, perturbation, max_steps=steps)
    )


def run_rwp(case: Case) -> dict:
    settings = case.settings
    perturbation = make_weight_perturbation(
        "rwp", settings["gamma"], settings["steps"], settings["c_min"]
    )
    perturb = _perturb_clean(case, perturbation)
    # Stopping after k = 0, 1, ..., K2 steps shows the state after each.
    states = [perturb(k) for k in range(settings["steps"] + 1)]
    ours = {
        "loss0": states[0].loss,
        "masked": np.array([state.gate_left for state in states]),
        "mean_loss": np.array([state.loss.mean() for state in states]),
        "v_norm": np.array([perturbed_norm(state.v) for state in states[1:]]),
    }
    for k, state in enumerate(states[1:], 1):
        entries = _perturbed_entries(case, state.v)
        ours |= _digests(f"v{k}", entries)
    return ours | {f"v/{name}": value for name, value in entries.items()}


def run_awp(case: Case) -> dict:
    perturbation = make_weight_perturbation("awp", case.settings["gamma"])
    return _digests("v1", _perturbed_entries(case, _perturb_clean(case, perturbation)(1).v))


def run_step(case: Case) -> dict:
    settings = case.settings
    objective, perturbation = re.match(r"step_([a-z]+)_([a-z]+)", case.name).groups()
    network = _network(case)
    recipe = make_recipe(settings, network.classifier, objective, perturbation)
    step = jax.jit(lambda state, x, y, start: attack_and_update(recipe, state, x, y, start))
    state = TrainState(
        jnp.zeros((), jnp.int32),
        network.params,
        network.batch_stats,
        recipe.optimizer.init(network.params),
    )
    ours, losses, norms = {}, [], []
    for s in range(settings["steps"]):
        x = case.images(s)
        state, delta, perturbed = step(state, x, case.labels(s), case.start(x, s))
        terms = perturbed.aux.terms
        parts = [terms[name] for name in ("natural_loss", "robust_loss") if name in terms]
        losses.append([values.mean() for values in (perturbed.loss, *parts)])
        norms.append(perturbed_norm(perturbed.v))
        entries = to_state_dict(settings["model"], state.params)
        ours |= _delta(f"delta_{s}", delta)
        ours |= _digests(f"v_step{s}", _perturbed_entries(case, perturbed.v))
        ours |= _digests(f"after{s}", entries | _running(case, state.batch_stats))
    ours["loss"] = np.array(losses).squeeze(1) if objective == "at" else np.array(losses)
    return ours | {"v_norm": np.array(norms if perturbation != "none" else [])}


RUNNERS = {
    "forward": run_forward,
    "attack": run_attack,
    "rwp": run_rwp,
    "awp": run_awp,
    "step_at": run_step,
    "step_trades": run_step,
    "step_rst": run_step,
    "eval": run_eval,
}


def kind_of(case_name: str) -> str:
    """Returns the kind of a case from its name; raises InputError if the kind is unknown."""
    for kind in RUNNERS:
        if case_name.startswith(f"{kind}_"):
            return kind
    raise InputError(
        f"{case_name}: unknown kind of case, must start with one of {', '.join(RUNNERS)}"
    )
