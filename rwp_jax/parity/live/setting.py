"""Settings of the compared training steps: objective, perturbation, network, norm and images."""

from typing import Any, NamedTuple

import numpy as np

from rwp_jax.parity import inputs

CLASSES = 10
AT_EPSILON = {"l_inf": (8 / 255, 2 / 255), "l_2": (128 / 255, 15 / 255)}  # epsilon, step size
PERTURBATIONS = ("none", "awp", "rwp")
NORMS = {  # in L_2, RST adds noise instead of attacking
    "at": ("l_inf", "l_2"),
    "trades": ("l_inf", "l_2"),
    "rst": ("l_inf",),
}
STEPS = {"wrn-10-1": 3, "preactresnet18": 1}
C_MIN = {"wrn-10-1": 3.6, "preactresnet18": 5.0}  # of AT: between the losses at random labels
IMAGES = 8


class Draws(NamedTuple):
    """Images and random numbers of one training step.

    Attributes:
      x: clean images [n, H, W, C].
      y: labels [n].
      start: the attack's first perturbation [n, H, W, C].
      random: random numbers from which the authors' code makes `start`, in its order, [n, C, H, W].
    """

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    random: list[np.ndarray]


class Setting(NamedTuple):
    """A setting of the authors' scripts, with their constants.

    Attributes:
      objective: `at`, `trades` or `rst`; also selects the folder of the authors' code.
      perturbation: `none`, `awp` or `rwp`.
      model: `wrn-10-1` or `preactresnet18`.
      norm: `l_inf` or `l_2`.
      steps: number of consecutive training steps.
    """

    objective: str
    perturbation: str
    model: str
    norm: str
    steps: int

    @property
    def name(self) -> str:
        return "_".join(self[:4])

    @property
    def cannot_run(self) -> bool:
        """Whether the authors' published code fails, because it adds losses [B] and [B, classes]."""
        return self.objective != "at" and self.perturbation == "rwp"

    def constants(self) -> dict[str, Any]:
        """Returns the constants in the form of a recorded case's settings, see `parity.recipe`."""
        epsilon, alpha = (0.031, 0.007) if self.objective == "rst" else AT_EPSILON[self.norm]
        at = self.objective == "at"
        return {
            "model": self.model,
            "normalize": at,
            "norm": self.norm,
            "eps": epsilon,
            "alpha": alpha,
            "pgd_steps": 10,
            "bn_attack": "train" if at else "eval",
            "beta": 0.0 if at else 6.0,
            "gamma": 0.01 if at else 0.005,
            "rwp_steps": 10,
            "c_min": C_MIN[self.model]
            if at
            else 1.7,  # hard-coded in the classes of TRADES and RST
            "lr": 0.1,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "nesterov": self.objective == "rst",
        }

    def draws(self, step: int) -> Draws:
        """Draws images, labels and random numbers of training step `step`, in float64."""
        x = inputs.images(IMAGES, 100 * step)
        y = np.random.default_rng([step, 32]).integers(0, CLASSES, IMAGES)
        seed = 50 + step
        if self.objective != "at":
            start = inputs.near(x, seed)
            return Draws(x, y, start, [_channels_first(inputs.direction(x.shape, seed))])
        epsilon = AT_EPSILON[self.norm][0]
        start = inputs.start(x, self.norm, epsilon, seed)
        if self.norm == "l_inf":
            random = [_channels_first(inputs.uniform(x.shape, epsilon, seed))]
        else:
            random = [_channels_first(inputs.direction(x.shape, seed)), inputs.radius(IMAGES, seed)]
        return Draws(x, y, start, random)


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def all_settings(steps: int | None = None) -> list[Setting]:
    """Lists all settings to compare, over `steps` training steps (None for STEPS).

    Settings that the authors' code cannot run are included only on the small network.
    """
    settings = [
        Setting(objective, perturbation, model, norm, steps or STEPS[model])
        for model in STEPS
        for objective, norms in NORMS.items()
        for norm in norms
        for perturbation in PERTURBATIONS
    ]
    small = next(iter(STEPS))
    # RST's folder supports only WideResNets; TRADES's code takes any network.
    wanted = lambda s: s.model == small or (not s.cannot_run and s.objective != "rst")
    return [setting for setting in settings if wanted(setting)]
