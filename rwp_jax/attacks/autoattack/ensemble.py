"""AutoAttack (Croce and Hein, 2020, arXiv:2003.01690): attacks in turn on the images still robust."""

import pathlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rwp_jax.attacks.arguments import check_classes, check_key, check_radius
from rwp_jax.attacks.autoattack import checks, doubts, layouts, packing
from rwp_jax.attacks.autoattack.attacking import Setting, run_attack
from rwp_jax.attacks.autoattack.backward import with_backward
from rwp_jax.attacks.autoattack.ball import check_inside
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.interaction import randomness
from rwp_jax.attacks.autoattack.log import Log
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.progress import Progress, listener
from rwp_jax.attacks.autoattack.state import Record, check_state, identity
from rwp_jax.attacks.autoattack.suite import Attack, attacks_of
from rwp_jax.errors import check_bool, check_function, check_integer
from rwp_jax.files import sha256
from rwp_jax.names import OFFICIAL_NORMS, norm_name

# Random stream of the verdicts; the attacks' streams are numbered from 0.
_VERDICTS = 2**31 - 1


class AutoAttackResult(NamedTuple):
    """Result of AutoAttack.

    Attributes:
      x_adv: float32, of the shape of x; adversarial images where an attack succeeded, clean images
        elsewhere.
      robust: [N] bool, whether an image is classified correctly under all attacks.
      robust_after: [N] bool after each attack in turn, by name, `clean` first; with individual=True, under
        each attack alone.
      seconds: time of each attack in seconds, by name, including compilation.
      warnings: messages of the warnings that were issued.
      y_adv: [N] int32, classes of x_adv in a further forward pass.
      x_adv_alone: with individual=True, x_adv of each attack alone, by name; empty otherwise.
    """

    x_adv: np.ndarray
    robust: np.ndarray
    robust_after: dict[str, np.ndarray]
    seconds: dict[str, float]
    warnings: list[str]
    y_adv: np.ndarray
    x_adv_alone: dict[str, np.ndarray]


def autoattack(
    logits_fn: Callable,
    x,
    y,
    norm: str = "l_inf",
    epsilon: float = 8 / 255,
    version: str = "standard",
    *,
    key=0,
    batch_size: int | None = None,
    attacks: Sequence[str | Attack] | None = None,
    targets=None,
    individual: bool = False,
    gradient_fn: Callable | None = None,
    randomized: bool = False,
    precision: str = "default",
    reuse: bool = False,
    layout: str = "NHWC",
    state_path: str | pathlib.Path | None = None,
    log_path: str | pathlib.Path | Log | None = None,
    progress: Callable[[Progress], None] | bool | None = None,
) -> AutoAttackResult:
    """Attacks every correctly classified image until one attack succeeds.

    Args:
      logits_fn: images float32 [B, H, W, C] in [0, 1] -> logits [B, classes], not probabilities; pure
        and differentiable, without interaction between examples. Preferably not wrapped in `jax.jit`: then
        its weights become arguments of the compiled programs, which other checkpoints reuse.
      x: images [N, H, W, C], floating point in [0, 1].
      y: labels [N], integers.
      norm: `l_inf`, `l_2` or `l_1`, also in other spellings such as `Linf`.
      epsilon: radius of the ball in the norm, for pixels in [0, 1]; from 0 to less than the largest
        distance between two images, which is 1 for l_inf, sqrt(H W C) for l_2 and H W C for l_1.
      version: `standard` (APGD-CE, targeted APGD, targeted FAB, Square; in l_1 with different restarts,
        targets and radii), `plus`, `rand` for randomised defences, or `custom`.
      key: seed or random key. Draws for an image depend only on the key, its index in x and the attack.
      batch_size: images per batch, over all devices of this host; default 16 per CPU, 256 per accelerator.
      attacks: for `custom`, names (`apgd-ce`, `apgd-dlr`, `apgd-t`, `fab`, `fab-t`, `square`) or attacks
        with other settings, such as `Square(queries=10_000)`.
      targets: target classes of `apgd-t` and `fab-t`, integers [N] or [N, T] in [0, classes), none of them
        the label, in place of the classes with the largest clean logits. Any wrong class counts as a
        success.
      individual: whether each attack runs alone, on all correctly classified images.
      gradient_fn: function like logits_fn whose derivative replaces that of logits_fn (BPDA), for networks
        that mask gradients; logits and verdicts still come from logits_fn.
      randomized: whether logits_fn takes a random key as its second argument.
      precision: precision of matrix products in the attacks, see `jax.default_matmul_precision`; by default
        the fast mode of the device. Verdicts always use the highest.
      reuse: whether compiled programs also serve other checkpoints of the network. On accelerators they
        always do; on CPUs, where constant weights are faster, only if True. Programs serve all radii.
      layout: layout of x, of the images passed to logits_fn and of the result, `NHWC` or `NCHW`.
      state_path: file to which progress is saved every minute and after each attack; if it exists, the
        evaluation resumes from it. With individual=True, one file per attack, with its name appended.
      log_path: file to which a line is appended for every attack and warning.
      progress: function called with a `Progress` about every hundred iterations; True draws a progress bar
        on standard error.

    Returns:
      AutoAttackResult. AutoAttackWarning is issued for whatever makes it doubtful, such as images with
        non-finite logits, which count as not robust.

    Raises:
      InputError: if arguments are invalid, before any attack; if the logits of all clean images are
        non-finite; if the state belongs to another evaluation.
    """
    check_function("logits_fn", logits_fn)
    norm = norm_name("norm", norm)
    wanted = attacks_of(version, attacks, norm)
    if batch_size is None:
        batch_size = packing.default_batch_size(jax.default_backend(), jax.local_device_count())
    batch_size = check_integer("batch_size", batch_size, 1)
    checks.check_matmul_precision(precision)
    path = checks.check_file("state_path", state_path)
    log = log_path if isinstance(log_path, Log) else Log(log_path)
    flags = {"individual": individual, "randomized": randomized, "reuse": reuse}
    for name, value in flags.items():
        check_bool(name, value)
    progress = listener(progress)
    arrange = layouts.Layout(layout)
    x, y = checks.check_images(arrange.images(x), y)
    epsilon = check_radius("epsilon", epsilon, norm, x.shape[1:])
    key = check_key(key)

    shape = arrange.shape(x.shape[1:])
    logits_fn = arrange.network(with_backward(logits_fn, gradient_fn, shape, randomized))
    model = make_model(logits_fn, x.shape[1:], randomized, reuse=reuse)
    check_classes(y, model.num_classes)
    checks.check_gradient(model, wanted)
    for attack in wanted:
        attack.check(model.num_classes)
    chosen, fit_messages = doubts.fitting(wanted, model.num_classes, version == "custom")
    targets = checks.check_targets(targets, y, model.num_classes, wanted)

    def identity_of(attacks: Sequence[Attack]) -> str:
        facts: dict[str, Any] = {
            "norm": OFFICIAL_NORMS[norm],  # the spelling in the state files of older versions
            "epsilon": epsilon,
            "attacks": repr(list(attacks)),
            "key": jax.random.key_data(key).tolist(),
            "network": model.digest,
            "precision": precision,
        }
        if targets is not None:
            facts["targets"] = sha256(targets)
        return identity(x, y, facts)

    if individual:
        path_of = lambda attack: path and path.with_name(f"{path.name}.{attack.name}")
        kept = [(path_of(attack), identity_of([attack])) for attack in chosen]
    else:
        kept = [(path, identity_of(chosen))]
    for state in kept:
        check_state(*state)
    size = packing.batch_size_for(min(len(x), batch_size), batch_size)
    forward = Forward(model, jax.random.fold_in(key, _VERDICTS), size)
    logits = forward(x)
    checks.check_clean_logits(logits)

    said: list[str] = []

    def warn(messages: Iterable[str]) -> None:
        for message in messages:
            said.append(message)
            log(f"warning: {message}")
            warnings.warn(message, doubts.AutoAttackWarning, stacklevel=3)

    log(f"AutoAttack {version}, {norm}, epsilon {epsilon:.6g}, {len(x)} images")
    warn(fit_messages)
    warn(randomness(forward, x[:size], y[:size], version, randomized))
    warn(doubts.about_network(logits_fn, model, forward, x, y, logits))
    if gradient_fn is not None:
        warn(doubts.about_backward(arrange.network(gradient_fn), x, randomized, size))
    warn(doubts.deterministic(model, chosen))
    nothing = np.flatnonzero(~np.isfinite(logits).all(-1))
    warn(doubts.not_finite("before any attack", nothing.tolist()))

    records = [Record(*state, x, y, logits) for state in kept]
    correct = records[0].robust_after["clean"]
    warn(doubts.no_gradient(model, chosen, x[correct], y[correct], size))
    forward.calls = max([forward.calls, *(record.verdict_calls for record in records)])
    if not individual:
        records *= len(chosen)
    log.accuracy("clean accuracy", records[0].robust_after["clean"])
    shared = (model, forward, x, y, norm, epsilon, key, batch_size, precision, targets)
    setting = Setting(*shared, len(chosen), progress)
    for place, (attack, record) in enumerate(zip(chosen, records, strict=True)):
        name = attack.name
        if name not in record.robust_after:
            run_attack(setting, attack, record, place)
        log.accuracy(
            f"robust accuracy {'under' if individual else 'after'} {name}",
            record.robust_after[name],
            record.seconds.get(name, 0.0),
        )
        warn(doubts.not_finite(f"under {name}", record.not_finite.get(name, [])))
        warn(doubts.zero_gradients(attack, record.zero_gradients.get(name, 0)))
        check_inside(record.x_adv, x, norm, epsilon)

    result = _combined(chosen, records, x)
    warn(doubts.gradient_masking(result.robust_after, individual))
    y_adv = forward(result.x_adv).argmax(-1).astype(np.int32)
    given_up = [i for record in records for images in record.not_finite.values() for i in images]
    if not randomized:
        warn(doubts.disagreement(result.robust, y_adv == y, [*nothing.tolist(), *given_up]))
    log.accuracy("robust accuracy", result.robust)
    return result._replace(
        x_adv=arrange.back(result.x_adv),
        warnings=said,
        y_adv=y_adv,
        x_adv_alone={
            attack.name: arrange.back(record.x_adv)
            for attack, record in zip(chosen, records, strict=True)
            if individual
        },
    )


def _combined(
    attacks: Sequence[Attack], records: Sequence[Record], x: np.ndarray
) -> AutoAttackResult:
    """Combines records, one per attack or one shared by all, into a result without y_adv and warnings."""
    robust_after = {"clean": records[0].robust_after["clean"]}
    x_adv, robust, seconds = x.copy(), robust_after["clean"], {}
    for attack, record in zip(attacks, records, strict=True):
        robust_after[attack.name] = record.robust_after[attack.name]
        seconds[attack.name] = record.seconds.get(attack.name, 0.0)
        new = robust & record.broken
        x_adv[new] = record.x_adv[new]
        robust = robust & ~record.broken
    return AutoAttackResult(x_adv, robust, robust_after, seconds, [], np.zeros(0, np.int32), {})
