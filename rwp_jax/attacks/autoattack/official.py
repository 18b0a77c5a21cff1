"""AutoAttack with the interface of the official package, so that a script changes only one import."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rwp_jax.attacks.arguments import check_classes, check_key, check_radius
from rwp_jax.attacks.autoattack import checks, layouts, packing
from rwp_jax.attacks.autoattack.ensemble import AutoAttackResult, autoattack
from rwp_jax.attacks.autoattack.forward import Forward
from rwp_jax.attacks.autoattack.log import Log
from rwp_jax.attacks.autoattack.model import make_model
from rwp_jax.attacks.autoattack.official_settings import (
    ApgdSettings,
    ApgdTargetedSettings,
    FabSettings,
    SquareSettings,
    official_names,
)
from rwp_jax.attacks.autoattack.suite import (
    ATTACKS,
    VERSIONS,
    ApgdCE,
    ApgdDLR,
    ApgdT,
    Attack,
    Fab,
    FabT,
    Square,
    attacks_of,
)
from rwp_jax.errors import (
    InputError,
    check_choice,
    check_function,
    check_integer,
    renamed,
    shown,
)
from rwp_jax.names import norm_name

_CHANNELS = (1, 3)


class AutoAttack:
    """Counterpart of the official class (fra31/auto-attack) with its arguments, methods and settings.

    Results are NumPy arrays.

    Attributes:
      model, norm, epsilon, seed, version, layout, randomized: values of the arguments.
      attacks_to_run: names of the attacks, in order.
      apgd, apgd_targeted, fab, square: settings, which may be changed before a run.
      result: AutoAttackResult of the last run.
    """

    # Slots, so that assigning to a misspelled attribute raises an error.
    __slots__ = (
        "model",
        "norm",
        "epsilon",
        "seed",
        "version",
        "layout",
        "randomized",
        "attacks_to_run",
        "apgd",
        "apgd_targeted",
        "fab",
        "square",
        "result",
        "_log",
    )

    def __init__(
        self,
        model: Callable,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: Any = None,
        log_path: Any = None,
        *,
        layout: str | None = None,
        randomized: bool = False,
    ):
        """Takes the arguments of the official class, and `layout` and `randomized`.

        Args:
          model: images [B, ...] in [0, 1] -> logits [B, classes], a JAX function.
          norm: `Linf`, `L2` or `L1`, also in other spellings.
          eps: radius of the ball.
          seed: seed of the random draws; None means 0, so that runs are repeatable.
          verbose: whether accuracies are printed.
          attacks_to_run: names of the attacks, for version `custom`.
          version: `standard`, `plus`, `rand` or `custom`.
          is_tf_model: must be False.
          device: ignored; attacks run on JAX's devices.
          log_path: file to which these lines are appended, also if verbose is False.
          layout: layout of images, `NCHW` or `NHWC`; by default the channel axis is the one of size 1 or 3.
          randomized: whether model takes a random key as its second argument.

        Raises:
          InputError: if an argument is invalid.
        """
        if is_tf_model:
            raise InputError("is_tf_model=True: model must be a JAX function")
        check_function("model", model)
        check_radius("eps", eps, norm_name("norm", norm), image_shape=None)
        check_choice("version", version, (*VERSIONS, "custom"))
        if not isinstance(attacks_to_run, list | tuple):
            raise InputError(f"attacks_to_run={shown(attacks_to_run)} must be a list of names")
        if version != "custom" and len(attacks_to_run):
            raise InputError(
                f"attacks_to_run= is for version='custom', not for version={version!r}"
            )
        if layout is not None:
            check_choice("layout", layout, layouts.LAYOUTS)
        self.model, self.norm, self.epsilon, self.randomized = model, norm, eps, randomized
        self.seed, self.version, self.layout = 0 if seed is None else seed, version, layout
        with renamed("key", "seed"):
            check_key(self.seed)
        self.attacks_to_run = list(attacks_to_run)
        self._log = Log(log_path, print if verbose else None)
        self.apgd, self.apgd_targeted = ApgdSettings(), ApgdTargetedSettings()
        self.fab, self.square = FabSettings(), SquareSettings()
        self.result: AutoAttackResult | None = None
        if version != "custom":
            self.set_version(version)

    def set_version(self, version: str) -> None:
        """Sets attacks and settings to those of a version."""
        attacks = attacks_of(version, None, norm_name("norm", self.norm))
        self.version, self.attacks_to_run = version, [attack.name for attack in attacks]
        for attack in attacks:
            if isinstance(attack, ApgdCE | ApgdDLR):
                self.apgd.n_restarts, self.apgd.eot_iter = attack.restarts, attack.eot
                self.apgd.use_largereps = attack.large_radii
            elif isinstance(attack, ApgdT):
                self.apgd_targeted.n_restarts = attack.restarts
                self.apgd_targeted.n_target_classes = attack.targets
                self.apgd_targeted.use_largereps = attack.large_radii
            elif isinstance(attack, FabT):
                self.fab.n_target_classes = attack.targets
            elif isinstance(attack, Square):
                self.square.n_queries = attack.queries
        if version != "rand":  # `rand` leaves FAB's settings unchanged
            self.fab.n_restarts = max(
                [a.restarts for a in attacks if isinstance(a, Fab)], default=1
            )

    def _attacks(self) -> list[Attack]:
        apgd, targeted, fab, square = self.apgd, self.apgd_targeted, self.fab, self.square
        untargeted = lambda kind: kind(
            restarts=apgd.n_restarts,
            steps=apgd.n_iter,
            eot=apgd.eot_iter,
            large_radii=apgd.use_largereps,
        )
        made: dict[str, Callable[[], Attack]] = {
            "apgd-ce": lambda: untargeted(ApgdCE),
            "apgd-dlr": lambda: untargeted(ApgdDLR),
            "apgd-t": lambda: ApgdT(
                targets=targeted.n_target_classes,
                restarts=targeted.n_restarts,
                steps=targeted.n_iter,
                eot=targeted.eot_iter,
                large_radii=targeted.use_largereps,
            ),
            "fab": lambda: Fab(restarts=fab.n_restarts, steps=fab.n_iter),
            # One restart whatever n_restarts is, as in the official code.
            "fab-t": lambda: FabT(targets=fab.n_target_classes, steps=fab.n_iter),
            "square": lambda: Square(
                restarts=square.n_restarts, queries=square.n_queries, p=square.p_init
            ),
        }
        for name in self.attacks_to_run:
            if name not in made:
                raise InputError(f"attacks_to_run: {name!r} must be one of {', '.join(ATTACKS)}")
        return [made[name]() for name in self.attacks_to_run]

    def _layout_of(self, x: np.ndarray) -> str:
        if self.layout or x.ndim != 4:
            return self.layout or "NHWC"
        first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
        if first == last:
            raise InputError(
                f"x_orig= is {list(x.shape)}: which axis holds the channels is ambiguous, give "
                "layout='NCHW' or layout='NHWC'"
            )
        return "NCHW" if first else "NHWC"

    def _run(self, x, y, bs: int, individual: bool, state_path: Any = None) -> AutoAttackResult:
        with official_names():
            x, y, attacks = checks.as_array("x", x), checks.as_array("y", y), self._attacks()
        version = self.version
        if version != "custom" and attacks != list(
            attacks_of(version, None, norm_name("norm", self.norm))
        ):
            version = "custom"
        with official_names():
            self.result = autoattack(
                self.model,
                x,
                y,
                self.norm,
                self.epsilon,
                version,
                key=self.seed,
                batch_size=bs,
                attacks=attacks if version == "custom" else None,
                individual=individual,
                randomized=self.randomized,
                layout=self._layout_of(x),
                state_path=state_path,
                log_path=self._log,
            )
        return self.result

    def run_standard_evaluation(
        self, x_orig, y_orig, bs: int = 250, return_labels: bool = False, state_path: Any = None
    ):
        """Runs the attacks in turn; returns x_adv, float32 of the shape of x_orig, or (x_adv, y_adv).

        x_orig are images, floating point [N, C, H, W] or [N, H, W, C] in [0, 1], y_orig labels [N], bs the
        images per batch, y_adv predicted classes, int32 [N]. state_path saves progress, as in `autoattack`.
        """
        result = self._run(x_orig, y_orig, bs, False, state_path)
        return (result.x_adv, result.y_adv) if return_labels else result.x_adv

    def run_standard_evaluation_individual(
        self, x_orig, y_orig, bs: int = 250, return_labels: bool = False
    ) -> dict:
        """Runs each attack alone; returns, by attack, what `run_standard_evaluation` returns."""
        result = self._run(x_orig, y_orig, bs, True)
        if not return_labels:
            return result.x_adv_alone
        return {name: (x, self._logits(x, bs).argmax(-1)) for name, x in result.x_adv_alone.items()}

    def _logits(self, x: np.ndarray, bs: int) -> np.ndarray:
        """Logits of images in the caller's layout, by the same forward pass as verdicts."""
        arrange = layouts.Layout(self._layout_of(x))
        images = arrange.images(x)
        model = make_model(arrange.network(self.model), images.shape[1:], self.randomized)
        size = packing.batch_size_for(min(len(x), bs), bs)
        return Forward(model, check_key(self.seed), size)(images)

    def clean_accuracy(self, x_orig, y_orig, bs: int = 250) -> float:
        """Returns the share of images classified as y_orig; raises InputError for invalid arguments."""
        bs = check_integer("bs", bs, 1)
        with official_names():
            x, y = checks.as_array("x", x_orig), checks.as_array("y", y_orig)
        arrange = layouts.Layout(self._layout_of(x))
        with official_names():
            images, y = checks.check_images(arrange.images(x), y)
            logits = self._logits(arrange.back(images), bs)
            check_classes(y, logits.shape[-1])
            checks.check_clean_logits(logits)
        correct = (logits.argmax(-1) == y) & np.isfinite(logits).all(-1)
        accuracy = float(correct.mean())
        self._log(f"clean accuracy: {accuracy:.2%}")
        return accuracy
