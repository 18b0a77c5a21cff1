"""Invalid checkpoints are refused with one line each."""

import pytest

from rwp_jax.errors import InputError
from rwp_jax.pytorch import export, import_

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.torch_networks")

from tests.pytorch.test_import import config_of, make_network  # noqa: E402


class Harmful:
    def __reduce__(self):
        return (print, ("code ran",))


def bad_files(directory):
    """Yields (content of the file, or its bytes; changes of the config; part of the message)."""
    state = make_network()[0].state_dict()
    yield Harmful(), {}, "is refused: it holds print, and unpickling it could run code; where the"
    yield b"no file of torch", {}, "is no file of torch.save: it is a text ('no file of torch')"
    yield {"epoch": 3}, {}, "holds no state dict (epoch): it must be one, or hold one under a key"
    yield [1, 2], {}, "holds no state dict"
    yield {}, {}, "holds no state dict"
    fewer = {n: v for n, v in state.items() if not n.startswith("block2.")}
    yield fewer, {}, "is not a wrn-10-1: block2.layer.0.bn1.bias is missing"
    yield state, {"model.name": "wrn-16-1"}, "is not a wrn-16-1 (most similar network: wrn-10-1)"
    yield state, {"model.name": "preactresnet18"}, "most similar network: wrn-10-1"
    yield state | {"conv1.weight": state["conv1.weight"][:8]}, {}, "must be [16, 3, 3, 3]"
    yield state | {"more": torch.zeros(2)}, {}, "more is unknown"
    yield {"a": torch.zeros(2, 2)}, {}, "no known network is similar"
    yield state, {"model.name": "resnet50"}, "is not a known model"
    yield state | {"mean": torch.zeros(3)}, {}, "must have both or none"
    stemless = {n: v for n, v in state.items() if n != "conv1.weight"} | {"more": torch.zeros(2)}
    yield stemless, {}, "conv1.weight is missing; more is unknown"
    broken = state | {"fc.bias": torch.full_like(state["fc.bias"], torch.nan)}
    yield broken, {}, "fc.bias has entries that are not finite"
    yield state | {"conv1.weight": state["conv1.weight"].to_sparse()}, {}, "is sparse_coo float64"
    yield state | {"conv1.weight": state["conv1.weight"].cfloat()}, {}, "is strided complex64"
    var = "block1.layer.0.bn1.running_var"
    yield state | {var: -state[var]}, {}, "running_var has negative entries"
    zero = state | {"mean": torch.zeros(3), "std": torch.tensor([1.0, 0.0, 1.0])}
    yield zero, {}, "must be finite and positive"
    huge = state | {"fc.bias": state["fc.bias"] + 1e300}
    yield huge, {"dtype": "float32"}, "fc.bias has entries that are not finite in float32"


@pytest.mark.parametrize("case", range(20))
def test_bad_checkpoints_are_refused_in_one_line(case, tmp_path, capsys):
    content, changes, message = list(bad_files(tmp_path))[case]
    path = tmp_path / "in.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError) as error:
        import_.import_torch(config_of(**changes), tmp_path / "run", path)
    text = str(error.value)
    assert message in text and "\n" not in text and text.count(";") <= 6
    assert not (tmp_path / "run").exists() and "code ran" not in capsys.readouterr().out


def test_other_refusals(tmp_path):
    network, optimizer = make_network()
    path, sgd, run = tmp_path / "in.pth", tmp_path / "sgd.pth", tmp_path / "run"
    torch.save(network.state_dict(), path)
    torch.save(optimizer.state_dict(), sgd)

    def refused(message, *arguments, **changes):
        with pytest.raises(InputError, match=message):
            import_.import_torch(config_of(**changes), run, *arguments)
        assert not run.exists()

    refused("is not a file", tmp_path / "none.pth")
    refused("holds no optimiser's state dict", path, path)
    refused(r"epoch=3 must be in \[1, config.epochs=2\]", path, None, 3)
    refused(r"epoch=-1 must be in \[1, config.epochs=2\]", path, None, -1)
    for broken in ({"state": [], "param_groups": []}, {"state": {}, "param_groups": [{}]}):
        torch.save(broken, tmp_path / "broken.pth")
        refused("state or param_groups is malformed", path, tmp_path / "broken.pth")
    torch.save(
        optimizer.state_dict() | {"state": {0: {"momentum_buffer": 1.0}}}, tmp_path / "one.pth"
    )
    refused("momentum_buffer that is not a tensor", path, tmp_path / "one.pth")
    refused("config.optimizer.momentum=0", path, sgd, **{"optimizer.momentum": 0.0})
    digits = {"data.name": "digits"}
    refused("3 channels and 10 classes, the data have 1 and 10", path, None, 1, **digits)
    refused("3 channels and 10 classes, the data have 1 and 10", path, **digits)
    rst = {"objective.name": "rst", "attack.bn": "eval"}
    refused("needs extra data", path, None, 1, **rst | digits)
    adam = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 3, 8, 8).double()).sum().backward()
    adam.step()
    torch.save(adam.state_dict(), tmp_path / "adam.pth")
    refused("is not the state of SGD", path, tmp_path / "adam.pth")
    groups = [{"params": [p]} for p in network.parameters()]
    torch.save(torch.optim.SGD(groups, lr=1).state_dict(), tmp_path / "groups.pth")
    refused("parameter groups, must have one", path, tmp_path / "groups.pth")
    fewer = torch.optim.SGD(list(network.parameters())[1:], lr=1)
    torch.save(fewer.state_dict(), tmp_path / "fewer.pth")
    refused("has momentum for", path, tmp_path / "fewer.pth")

    import_.import_torch(config_of(**rst), run, path)  # nothing is left to train
    with pytest.raises(InputError, match="already holds a run"):
        import_.import_torch(config_of(**rst), run, path)
    with pytest.raises(InputError, match="already exists"):
        export.export_torch(run, "last", path)
    with pytest.raises(InputError, match="there is no directory"):
        export.export_torch(run, "last", tmp_path / "none" / "out.pth")
    (run / "torch_aside.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="torch_aside.npz is damaged"):
        export.export_torch(run, "last", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
