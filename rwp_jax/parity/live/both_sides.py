"""Compares both sides of a setting, quantity by quantity."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rwp_jax.errors import first_line
from rwp_jax.parity.agreement import relative_error
from rwp_jax.parity.live.checkout import Checkout
from rwp_jax.parity.live.jax_side import our_steps
from rwp_jax.parity.live.setting import Setting
from rwp_jax.parity.live.torch_side import their_steps
from rwp_jax.parity.live.trace import NORM, QUANTITIES, Step, l_2, relative_distance


class QuantityRow(NamedTuple):
    """One quantity of a setting, over all its steps.

    Attributes:
      quantity: a key of QUANTITIES.
      theirs, ours: value in the last training step in float64, "" if there is none: the loss, the gate
        counts, or the L_2 norm (of delta and v after their last step).
      error: largest relative error of any array in any step, in float64; NaN if nothing was compared.
      worst: array and step that have this error.
      drift: |ours - theirs| / |theirs| in L_2 after each step, in float32.
      rounding: the same between the authors' code in float32 and in float64.
    """

    quantity: str
    theirs: str
    ours: str
    error: float
    worst: str
    drift: list[float]
    rounding: list[float]


class Compared(NamedTuple):
    """Result of comparing both sides of a setting.

    Attributes:
      setting: the setting.
      lines: one row per quantity that the setting has.
      growth: float32 drift inside the first training step, by quantity: of delta after 0, 1, ... attack
        steps, of v after 1, 2, ... ascent steps.
      stopped: the exception that stopped the authors' code, "" if none did.
      tolerance: tolerance of the float64 errors.
    """

    setting: Setting
    lines: list[QuantityRow]
    growth: dict[str, list[float]]
    stopped: str
    tolerance: float

    @property
    def failed(self) -> bool:
        if self.stopped:
            return not self.setting.cannot_run
        return any(outside(line, self.tolerance) for line in self.lines)


def outside(line: QuantityRow, tolerance: float) -> bool:
    """Whether a compared line is outside the tolerance; NaN always is."""
    return not line.error <= tolerance


def _figure(quantity: str, arrays: Mapping[str, np.ndarray]) -> str:
    if quantity == "gates":
        return " ".join(str(count) for count in arrays["0"])
    if quantity == "loss":
        return f"{float(arrays['0']):.12g}"
    if quantity == "v":
        return f"{arrays[NORM][-1]:.12g}"
    last = {"": list(arrays.values())[-1]} if quantity == "delta" else arrays
    return f"{l_2(last):.12g}"


def _error(ours: Mapping, theirs: Mapping) -> tuple[float, str]:
    """Returns the largest relative error of any array and its name; inf if only one side has the array."""
    both = ours.keys() & theirs.keys()
    errors = dict.fromkeys(ours.keys() | theirs.keys(), float("inf"))
    errors |= {name: relative_error(ours[name], theirs[name]) for name in both}
    worst = max(errors, key=errors.get)
    return errors[worst], worst


def _distance(a: Mapping, b: Mapping) -> float:
    shapes = lambda arrays: {name: np.shape(array) for name, array in arrays.items()}
    return relative_distance(a, b) if shapes(a) == shapes(b) else float("inf")


def _line(
    quantity: str, ours: dict[str, list[Step]], theirs: dict[str, list[Step]]
) -> QuantityRow | None:
    """Compares a quantity; `ours` and `theirs` map dtypes to steps.

    `theirs` is empty if the authors' code stopped. Returns None if the setting does not have the quantity.
    """
    of = lambda steps: [step.get(quantity, {}) for step in steps]
    mine = of(ours["float64"])
    if not theirs:
        figure = _figure(quantity, mine[-1]) if mine[-1] else ""
        return QuantityRow(quantity, "", figure, float("nan"), "", [], []) if figure else None
    reference = of(theirs["float64"])
    if not mine[-1] and not reference[-1]:
        return None
    errors = [
        (*_error(a, b), s) for s, (a, b) in enumerate(zip(mine, reference, strict=True)) if a or b
    ]
    error, worst, step = max(errors)
    in_32 = list(zip(of(ours["float32"]), of(theirs["float32"]), reference, strict=True))[1:]
    return QuantityRow(
        quantity,
        *(_figure(quantity, side[-1]) if side[-1] else "" for side in (reference, mine)),
        error,
        f"{worst}, step {step}",
        [_distance(a, b) for a, b, _ in in_32],
        [_distance(b, exact) for _, b, exact in in_32],
    )


def _growth(ours: Step, theirs: Step) -> dict[str, list[float]]:
    """Returns distances after each attack and ascent step, by quantity; array names start with the step."""

    def distances(a, b):
        numbers = dict.fromkeys(name.split(" ")[0] for name in b if name != NORM)
        after = lambda arrays, k: {n: v for n, v in arrays.items() if n.split(" ")[0] == k}
        return [_distance(after(a, k), after(b, k)) for k in numbers]

    return {q: distances(ours[q], theirs[q]) for q in ("delta", "v") if theirs[q]}


def compare_setting(
    checkout: Checkout, setting: Setting, device: str, tolerance: float
) -> Compared:
    """Runs both sides in float64 and float32.

    Args:
      checkout: see `checkout.read_checkout`.
      setting: the setting to run.
      device: device of the authors' side, `cpu` or `cuda`; ours runs on JAX's default device.
      tolerance: tolerance of the float64 errors.
    """
    theirs, stopped = {}, ""
    try:
        theirs = {d: their_steps(checkout, setting, device, d) for d in ("float64", "float32")}
    except Exception as error:  # a changed checkout may raise anything
        stopped = f"{type(error).__name__}: {first_line(error)}"
    ours = {d: our_steps(setting, d) for d in (["float64", "float32"] if theirs else ["float64"])}
    lines = (_line(quantity, ours, theirs) for quantity in QUANTITIES)
    growth = _growth(ours["float32"][1], theirs["float32"][1]) if theirs else {}
    return Compared(setting, [line for line in lines if line], growth, stopped, tolerance)
