"""The attacks of AutoAttack with their settings, and the versions made of them.

An attack runs `restarts` searches for each of its `targets` (the classes of the 2nd, 3rd, ... largest
clean logit; 0: untargeted), until one of them fools the network.
"""

import dataclasses
from typing import ClassVar

from rwp_jax.attacks.autoattack.apgd import make_apgd
from rwp_jax.attacks.autoattack.fab import make_fab
from rwp_jax.attacks.autoattack.margins import below_largest, dlr, targeted_dlr
from rwp_jax.attacks.autoattack.search import Job, Search
from rwp_jax.attacks.autoattack.square import make_square
from rwp_jax.errors import InputError, check_choice, check_integer, check_number, shown
from rwp_jax.losses import cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """What all attacks have.

    Attributes:
      name: as in AutoAttack.
      least_classes: that the loss is defined for.
      targets: number of target classes, 0 for an untargeted attack.
      restarts: searches for each target, from different starts.
    """

    name: ClassVar[str]
    least_classes: ClassVar[int] = 2
    # Targeted attacks make a setting of it, the first in their repr, which files of states hold.
    targets: int = dataclasses.field(default=0, init=False, repr=False)
    restarts: int = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.init and field.type is int:
                value = check_integer(field.name, getattr(self, field.name), 1)
                object.__setattr__(self, field.name, value)  # of NumPy's integers, a plain one

    @property
    def iterations(self) -> int:
        """Of one search."""
        raise NotImplementedError

    def search(self, norm: str, epsilon, image_shape: tuple[int, ...]) -> Search:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _Apgd(Attack):
    """APGD on `loss`; gradients are averaged over `eot` evaluations."""

    steps: int = 100
    eot: int = 1
    large_radii: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.large_radii, bool):
            raise InputError(f"large_radii={shown(self.large_radii)} must be True or False")

    def __repr__(self):
        """Names large_radii where it is set alone: files of states hold reprs older than it."""
        fields = [f.name for f in dataclasses.fields(self) if f.repr]
        named = [name for name in fields if name != "large_radii" or self.large_radii]
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in named)
        return f"{type(self).__qualname__}({settings})"

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
      restarts: searches of each image from different starts, at least 1.
      steps: of a search, at least 1.
      eot: evaluations of a randomised defence that each gradient is the mean of, at least 1.
      large_radii: for L1 alone, whether the steps are spent in balls of 3, 2 and 1 epsilon in turn
        (Croce and Hein, 2021, arXiv:2103.01208), as `standard` has it.
    """

    name = "apgd-ce"

    def loss(self, logits, job):
        return cross_entropy(below_largest(logits), job.y)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApgdDLR(_Apgd):
    """APGD on the difference of logits ratio (Croce and Hein, 2020); it needs 3 classes.

    Args:
      restarts: searches of each image from different starts, at least 1.
      steps: of a search, at least 1.
      eot: evaluations of a randomised defence that each gradient is the mean of, at least 1.
      large_radii: for L1 alone, whether the steps are spent in balls of 3, 2 and 1 epsilon in turn
        (Croce and Hein, 2021, arXiv:2103.01208), as `standard` has it.
    """

    name = "apgd-dlr"
    least_classes = 3

    def loss(self, logits, job):
        return dlr(logits, job.y)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class ApgdT(_Apgd):
    """APGD on the targeted difference of logits ratio (Croce and Hein, 2020); it needs 4 classes.

    Args:
      targets: number of target classes, those of the 2nd, 3rd, ... largest clean logit, at least 1.
      restarts: searches for each target from different starts, at least 1.
      steps: of a search, at least 1.
      eot: evaluations of a randomised defence that each gradient is the mean of, at least 1.
      large_radii: for L1 alone, whether the steps are spent in balls of 3, 2 and 1 epsilon in turn
        (Croce and Hein, 2021, arXiv:2103.01208), as `standard` has it.
    """

    name = "apgd-t"
    least_classes = 4
    targets: int = 9

    def loss(self, logits, job):
        return targeted_dlr(logits, job.y, job.target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fab(Attack):
    """FAB at the nearest boundary (Croce and Hein, 2020, arXiv:1907.02044); it differentiates all logits.

    Args:
      restarts: searches of each image from different starts, at least 1.
      steps: of a search, at least 1.
    """

    name = "fab"
    steps: int = 100

    @property
    def iterations(self):
        return self.steps

    def search(self, norm, epsilon, image_shape):
        return make_fab(norm, epsilon, targeted=False, steps=self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FabT(Attack):
    """FAB at the boundaries to target classes (Croce and Hein, 2020, arXiv:1907.02044).

    Args:
      targets: number of target classes, those of the 2nd, 3rd, ... largest clean logit, at least 1.
      restarts: searches for each target from different starts, at least 1.
      steps: of a search, at least 1.
    """

    name = "fab-t"
    targets: int = 9
    steps: int = 100

    @property
    def iterations(self):
        return self.steps

    def search(self, norm, epsilon, image_shape):
        return make_fab(norm, epsilon, targeted=True, steps=self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Square (Andriushchenko et al., 2020, arXiv:1912.00049), which needs no gradients.

    Args:
      restarts: searches of each image from different starts, at least 1.
      queries: forwards of a search, at least 1.
      p: share of the image that the first windows cover, in (0, 1].
    """

    name = "square"
    queries: int = 5000
    p: float = 0.8

    def __post_init__(self):
        super().__post_init__()
        share = check_number("p", self.p, "in (0, 1]", lambda share: 0 < share <= 1)
        object.__setattr__(self, "p", share)

    @property
    def iterations(self):
        return self.queries

    def search(self, norm, epsilon, image_shape):
        return make_square(norm, epsilon, image_shape, queries=self.queries, p=self.p)


ATTACKS = {attack.name: attack for attack in (ApgdCE, ApgdDLR, ApgdT, Fab, FabT, Square)}
VERSIONS = {
    "standard": (ApgdCE(), ApgdT(), FabT(), Square()),
    "plus": (ApgdCE(restarts=5), ApgdDLR(restarts=5), Fab(restarts=5), Square(), ApgdT(), FabT()),
    "rand": (ApgdCE(eot=20), ApgdDLR(eot=20)),
}
# As the official code, which leaves the others as they are for all norms.
_STANDARD_L1 = (
    ApgdCE(restarts=5, large_radii=True),
    ApgdT(targets=5, large_radii=True),
    FabT(),
    Square(),
)
NORMS = ("Linf", "L2", "L1")


def attacks_of(version: str, attacks, norm: str) -> tuple[Attack, ...]:
    """The attacks of a version for a norm; of `custom`, those given as names or with settings.

    Raises:
      InputError: for an unknown version or attack, attacks missing or not wanted, or settings that the norm
        does not have.
    """
    if isinstance(version, str) and version in VERSIONS:
        if attacks is not None:
            raise InputError(f"attacks= is for version='custom', not for version={version!r}")
        return _STANDARD_L1 if (version, norm) == ("standard", "L1") else VERSIONS[version]
    check_choice("version", version, (*VERSIONS, "custom"))
    if not isinstance(attacks, list | tuple | None):
        attacks = (attacks,)
    if not attacks:
        raise InputError(f"attacks= is missing for version='custom': some of {', '.join(ATTACKS)}")
    chosen = []
    for attack in attacks:
        if not isinstance(attack, Attack):
            if not isinstance(attack, str) or attack not in ATTACKS:
                raise InputError(f"attacks: {shown(attack)} must be one of {', '.join(ATTACKS)}")
            attack = ATTACKS[attack]()
        if norm != "L1" and getattr(attack, "large_radii", False):
            raise InputError(f"attacks: {attack.name} has large_radii for L1 alone, not for {norm}")
        chosen.append(attack)
    names = [attack.name for attack in chosen]
    if len(set(names)) < len(names):
        raise InputError(f"attacks={', '.join(names)} names one twice; give it restarts instead")
    return tuple(chosen)


def check_norm(norm: str) -> None:
    """Raises InputError unless the norm is one that every attack knows."""
    if not isinstance(norm, str) or norm not in NORMS:
        raise InputError(f"norm={shown(norm)} must be {', '.join(NORMS[:-1])} or {NORMS[-1]}")
