"""The attacks of AutoAttack and their settings.

An attack runs `restarts` searches for each of its `targets` (the classes of the 2nd, 3rd, ... largest
clean logit; 0 means untargeted) until one of them fools the network.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rwp_jax.attacks.arguments import check_losses
from rwp_jax.attacks.autoattack.apgd import make_apgd
from rwp_jax.attacks.autoattack.fab import make_fab
from rwp_jax.attacks.autoattack.margins import below_largest, dlr, targeted_dlr
from rwp_jax.attacks.autoattack.search import Job, Search
from rwp_jax.attacks.autoattack.square import make_square
from rwp_jax.errors import (
    InputError,
    check_integer,
    check_number,
    function_of_the_user,
    shown,
)
from rwp_jax.losses import cross_entropy
from rwp_jax.models.traced import program_digest


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Attack:
    """Settings common to all attacks.

    Attributes:
      name: name of the attack in AutoAttack.
      least_classes: smallest number of classes for which the loss is defined.
      newer: settings that the repr omits at their defaults, because the reprs in older state files lack
        them.
      targets: number of target classes, 0 for an untargeted attack.
      restarts: number of searches for each target, from different starts.
    """

    name: ClassVar[str]
    least_classes: ClassVar[int] = 2
    newer: ClassVar[tuple[str, ...]] = ()
    # Targeted attacks redefine it as a setting. It must stay first in the repr, which state files contain.
    targets: int = dataclasses.field(default=0, init=False, repr=False)
    restarts: int = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.init and field.type is int:
                value = check_integer(field.name, getattr(self, field.name), 1)
                object.__setattr__(self, field.name, value)  # converts NumPy integers to int

    def __repr__(self) -> str:
        shown_always = lambda field: field.name not in self.newer
        fields = [
            field
            for field in dataclasses.fields(self)
            if field.repr and (shown_always(field) or getattr(self, field.name) != field.default)
        ]
        settings = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields)
        return f"{type(self).__qualname__}({settings})"

    def check(self, num_classes: int) -> None:
        """Raises InputError if the settings do not fit networks of the given number of classes."""

    @property
    def iterations(self) -> int:
        """Number of iterations of one search."""
        raise NotImplementedError

    def search(self, norm: str, epsilon, image_shape: tuple[int, ...]) -> Search:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _Apgd(Attack):
    """APGD on `loss`; gradients are averaged over `eot` evaluations."""

    steps: int = 100
    eot: int = 1
    large_radii: bool = False
    newer = ("large_radii",)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.large_radii, bool):
            raise InputError(f"large_radii={shown(self.large_radii)} must be True or False")

    @property
    def iterations(self):
        return self.steps

    def loss(self, logits, job: Job):
        raise NotImplementedError

    def search(self, norm, epsilon, image_shape):
        return make_apgd(
            self.loss,
            norm,
            epsilon,
            steps=self.steps,
            eot=self.eot,
            large_radii=self.large_radii,
        )


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApgdCE(_Apgd):
    """APGD on the cross-entropy (Croce and Hein, 2020).

    Args:
      restarts: number of searches for each image, from different starts, at least 1.
      steps: number of iterations of a search, at least 1.
      eot: number of evaluations of a randomised defence over which each gradient is averaged, at least 1.
      large_radii: for L1 only, whether to divide the steps among balls of 3, 2 and 1 epsilon in turn
        (Croce and Hein, 2021, arXiv:2103.01208), as `standard` does.
    """

    name = "apgd-ce"

    def loss(self, logits, job):
        return cross_entropy(below_largest(logits), job.y)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApgdDLR(_Apgd):
    """APGD on the difference of logits ratio (Croce and Hein, 2020), for at least 3 classes.

    Args:
      restarts: number of searches for each image, from different starts, at least 1.
      steps: number of iterations of a search, at least 1.
      eot: number of evaluations of a randomised defence over which each gradient is averaged, at least 1.
      large_radii: for L1 only, whether to divide the steps among balls of 3, 2 and 1 epsilon in turn
        (Croce and Hein, 2021, arXiv:2103.01208).
    """

    name = "apgd-dlr"
    least_classes = 3

    def loss(self, logits, job):
        return dlr(logits, job.y)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApgdT(_Apgd):
    """APGD on the targeted difference of logits ratio (Croce and Hein, 2020), for at least 4 classes.

    Args:
      targets: number of target classes (those with the 2nd, 3rd, ... largest clean logit), at least 1.
      restarts: number of searches for each target, from different starts, at least 1.
      steps: number of iterations of a search, at least 1.
      eot: number of evaluations of a randomised defence over which each gradient is averaged, at least 1.
      large_radii: for L1 only, whether to divide the steps among balls of 3, 2 and 1 epsilon in turn
        (Croce and Hein, 2021, arXiv:2103.01208), as `standard` does.
    """

    name = "apgd-t"
    least_classes = 4
    targets: int = 9

    def loss(self, logits, job):
        return targeted_dlr(logits, job.y, job.target)


def _check_alone(function: Callable, num_classes: int) -> None:
    """Raises InputError if an example's loss changes with the other examples in its batch."""
    first, *others = jax.random.normal(jax.random.key(0), (7, num_classes), "float32")
    y = jnp.zeros(4, jnp.int32)
    one, other = (function(jnp.stack([first, *part]), y)[0] for part in (others[:3], others[3:]))
    if not np.allclose(one, other, rtol=1e-3, atol=1e-6, equal_nan=True):
        raise InputError(
            "function= gives an example another loss when the others in its batch change, must compute "
            "each loss from its own example"
        )


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApgdLoss(_Apgd):
    """APGD on a user-defined loss, for version `custom`.

    Args:
      function: (logits [B, classes], y [B]) -> losses [B] to maximise, each from its own example only.
      restarts: number of searches for each image, from different starts, at least 1.
      steps: number of iterations of a search, at least 1.
      eot: number of evaluations of a randomised defence over which each gradient is averaged, at least 1.
      large_radii: for L1 only, see `ApgdCE`.
    """

    name = "apgd-loss"
    function: Callable = dataclasses.field(repr=False)

    def __post_init__(self):
        super().__post_init__()
        if not callable(self.function) or not isinstance(self.function, Hashable):
            raise InputError(f"function={shown(self.function)} must be a function, and hashable")
        object.__setattr__(self, "_digest", "")

    def __repr__(self):
        """Includes a digest of the function as traced by `check`, so that states tell functions apart."""
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return f"{super().__repr__()[:-1]}, function={name} {self._digest})"

    def check(self, num_classes):
        logits = jax.ShapeDtypeStruct((2, num_classes), "float32")
        y = jax.ShapeDtypeStruct((2,), "int32")
        with function_of_the_user("function"):
            check_losses("function", jax.eval_shape(self.function, logits, y), 2)
            gradient = lambda logits, y: jax.grad(lambda z: self.function(z, y).sum())(logits)
            traced = [jax.make_jaxpr(f)(logits, y) for f in (self.function, gradient)]
            _check_alone(self.function, num_classes)
        object.__setattr__(self, "_digest", " ".join(program_digest(f)[:16] for f in traced))

    def loss(self, logits, job):
        return self.function(logits, job.y)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _Fab(Attack):
    """FAB, targeted if `targets` > 0; logits are averaged over `eot` evaluations."""

    newer = ("eot",)
    steps: int = 100
    eot: int = 1

    @property
    def iterations(self):
        return self.steps

    def search(self, norm, epsilon, image_shape):
        return make_fab(norm, epsilon, targeted=bool(self.targets), steps=self.steps, eot=self.eot)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Fab(_Fab):
    """FAB at the nearest boundary (Croce and Hein, 2020, arXiv:1907.02044); it differentiates all logits.

    Args:
      restarts: number of searches for each image, from different starts, at least 1.
      steps: number of iterations of a search, at least 1.
      eot: number of evaluations of a randomised defence over which logits are averaged, at least 1.
    """

    name = "fab"


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class FabT(_Fab):
    """FAB at the boundaries to target classes (Croce and Hein, 2020, arXiv:1907.02044).

    Args:
      targets: number of target classes (those with the 2nd, 3rd, ... largest clean logit), at least 1.
      restarts: number of searches for each target, from different starts, at least 1.
      steps: number of iterations of a search, at least 1.
      eot: number of evaluations of a randomised defence over which logits are averaged, at least 1.
    """

    name = "fab-t"
    targets: int = 9


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Square(Attack):
    """Square Attack (Andriushchenko et al., 2020, arXiv:1912.00049), which needs no gradients.

    Args:
      restarts: number of searches for each image, from different starts, at least 1.
      queries: number of iterations of a search, one query of the network each, at least 1.
      p: share of the image that the first windows cover, in (0, 1].
      eot: number of evaluations of a randomised defence over which logits are averaged, at least 1.
    """

    name = "square"
    newer = ("eot",)
    queries: int = 5000
    p: float = 0.8
    eot: int = 1

    def __post_init__(self):
        super().__post_init__()
        share = check_number("p", self.p, "in (0, 1]", lambda share: 0 < share <= 1)
        object.__setattr__(self, "p", share)

    @property
    def iterations(self):
        return self.queries

    def search(self, norm, epsilon, image_shape):
        return make_square(norm, epsilon, image_shape, queries=self.queries, p=self.p, eot=self.eot)
