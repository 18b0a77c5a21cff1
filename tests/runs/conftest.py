"""Runs with a user-defined network and objective."""

import sys

import pytest

from rwp_jax.configs import digits_at_rwp
from rwp_jax.training import trainer
from tests.own_code import MODULE, keep_registered
from tests.small import shrink, write_two_classes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns a directory with a user's module, data and run, after undoing all registrations."""
    root = tmp_path_factory.mktemp("own")
    (root / "tiny_network.py").write_text(MODULE)
    path = write_two_classes(root / "two.npz", 48, 20)
    config = shrink(digits_at_rwp.get_config("full"), **{"data.path": path, "model.name": "tiny"})
    config.objective.name, config.objective.shift = "shifted", 0.25
    with pytest.MonkeyPatch.context() as patch:
        keep_registered(patch)
        patch.syspath_prepend(root)
        import tiny_network  # noqa: F401  (importing it registers the code)

        trainer.train(config, root / "run")
        again = trainer.train(config, root / "run")  # finished: nothing is left to train
        assert again["last"]["epoch"] == 2
    del sys.modules["tiny_network"]
    return root


@pytest.fixture
def own(trained, monkeypatch):
    keep_registered(monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield trained
    sys.modules.pop("tiny_network", None)
