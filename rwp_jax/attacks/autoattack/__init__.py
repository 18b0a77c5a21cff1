"""AutoAttack for any JAX classifier: `autoattack`, `minimum_norm`, the attacks and their settings."""

from rwp_jax.attacks.autoattack.doubts import AutoAttackWarning
from rwp_jax.attacks.autoattack.ensemble import AutoAttackResult, autoattack
from rwp_jax.attacks.autoattack.minimum_norm import MinimumNormResult, minimum_norm
from rwp_jax.attacks.autoattack.official import AutoAttack
from rwp_jax.attacks.autoattack.progress import Progress
from rwp_jax.attacks.autoattack.settings import (
    ApgdCE,
    ApgdDLR,
    ApgdLoss,
    ApgdT,
    Fab,
    FabT,
    Square,
)

__all__ = [
    "ApgdCE",
    "ApgdDLR",
    "ApgdLoss",
    "ApgdT",
    "AutoAttack",
    "AutoAttackResult",
    "AutoAttackWarning",
    "Fab",
    "FabT",
    "MinimumNormResult",
    "Progress",
    "Square",
    "autoattack",
    "minimum_norm",
]
