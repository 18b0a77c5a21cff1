"""A PyTorch network's state dict, shared by the tests of checkpoint files."""

import pytest


@pytest.fixture(scope="package")
def state():
    torch = pytest.importorskip("torch")
    from tests.pytorch import test_import

    torch.manual_seed(0)
    return test_import.networks.Network(test_import.MODEL).state_dict()
