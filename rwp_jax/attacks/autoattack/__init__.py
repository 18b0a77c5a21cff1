"""AutoAttack for any JAX classifier: `autoattack`, the attacks with their settings, their warning."""

from rwp_jax.attacks.autoattack.checks import AutoAttackWarning
from rwp_jax.attacks.autoattack.ensemble import AutoAttackResult, Progress, autoattack
from rwp_jax.attacks.autoattack.suite import ApgdCE, ApgdDLR, ApgdT, Fab, FabT, Square

__all__ = [
    "ApgdCE",
    "ApgdDLR",
    "ApgdT",
    "AutoAttackResult",
    "AutoAttackWarning",
    "Fab",
    "FabT",
    "Progress",
    "Square",
    "autoattack",
]
