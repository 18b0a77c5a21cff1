"""The versions of AutoAttack and the attacks by name."""

from rwp_jax.attacks.autoattack.settings import (
    ApgdCE,
    ApgdDLR,
    ApgdLoss,
    ApgdT,
    Attack,
    Fab,
    FabT,
    Square,
)
from rwp_jax.errors import InputError, check_choice, shown

ATTACKS = {attack.name: attack for attack in (ApgdCE, ApgdDLR, ApgdT, Fab, FabT, Square)}
# Numbers of the attacks' random streams; a number never changes, as results depend on it.
NUMBERS = {
    ApgdCE.name: 0,
    ApgdDLR.name: 1,
    ApgdT.name: 2,
    Fab.name: 3,
    FabT.name: 4,
    Square.name: 5,
    ApgdLoss.name: 6,
}
VERSIONS = {
    "standard": (ApgdCE(), ApgdT(), FabT(), Square()),
    "plus": (ApgdCE(restarts=5), ApgdDLR(restarts=5), Fab(restarts=5), Square(), ApgdT(), FabT()),
    "rand": (ApgdCE(eot=20), ApgdDLR(eot=20)),
}
# As in the official code, whose other versions are the same for all norms.
_STANDARD_L1 = (
    ApgdCE(restarts=5, large_radii=True),
    ApgdT(targets=5, large_radii=True),
    FabT(),
    Square(),
)


def attacks_of(version: str, attacks, norm: str) -> tuple[Attack, ...]:
    """Returns the attacks of a version for a norm; for `custom`, those given by name or with settings.

    Raises:
      InputError: for an unknown version or attack, attacks missing for `custom` or given for another
        version, or a setting that is not available for the norm.
    """
    if isinstance(version, str) and version in VERSIONS:
        if attacks is not None:
            raise InputError(f"attacks= is for version='custom', not for version={version!r}")
        return _STANDARD_L1 if (version, norm) == ("standard", "l_1") else VERSIONS[version]
    check_choice("version", version, (*VERSIONS, "custom"))
    if not isinstance(attacks, list | tuple | None):
        attacks = (attacks,)
    if not attacks:
        raise InputError(
            f"attacks= is missing for version='custom': give some of {', '.join(ATTACKS)}"
        )
    chosen = []
    for attack in attacks:
        if not isinstance(attack, Attack):
            if not isinstance(attack, str) or attack not in ATTACKS:
                raise InputError(f"attacks: {shown(attack)} must be one of {', '.join(ATTACKS)}")
            attack = ATTACKS[attack]()
        if norm != "l_1" and getattr(attack, "large_radii", False):
            raise InputError(
                f"attacks: {attack.name} has large_radii, which is for l_1 only, not for {norm}"
            )
        chosen.append(attack)
    names = [attack.name for attack in chosen]
    if len(set(names)) < len(names):
        raise InputError(
            f"attacks={', '.join(names)} names an attack twice; set its restarts instead"
        )
    return tuple(chosen)
