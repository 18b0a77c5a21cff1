"""Settings of the attacks under the names of the official package; slots refuse misspelled ones."""

import dataclasses


@dataclasses.dataclass(slots=True)
class ApgdSettings:
    """Settings of `apgd-ce` and `apgd-dlr`; `use_largereps` is for L1."""

    n_restarts: int = 5
    n_iter: int = 100
    eot_iter: int = 1
    use_largereps: bool = False


@dataclasses.dataclass(slots=True)
class ApgdTargetedSettings:
    """Settings of `apgd-t`; `use_largereps` is for L1."""

    n_restarts: int = 1
    n_target_classes: int = 9
    n_iter: int = 100
    eot_iter: int = 1
    use_largereps: bool = False


@dataclasses.dataclass(slots=True)
class FabSettings:
    """Settings of `fab` and `fab-t`."""

    n_restarts: int = 5
    n_target_classes: int = 9
    n_iter: int = 100


@dataclasses.dataclass(slots=True)
class SquareSettings:
    """Settings of `square`."""

    n_restarts: int = 1
    n_queries: int = 5000
    p_init: float = 0.8
