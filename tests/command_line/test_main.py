"""The command line as a subprocess; refusals that come before anything runs are tested in this process."""

import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from rwp_jax.command_line.config_file import find_config, load_config
from rwp_jax.command_line.parsing import fractions_to_decimals
from rwp_jax.command_line.program import main
from tests.fresh_flags import forget_flags

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = "--config=configs/digits_at_rwp.py"


def run(*arguments, code=None):
    command = [sys.executable, *(["-c", code] if code else ["main.py"]), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls the program as `python main.py ARGUMENTS` would; returns exit code, stdout and stderr."""

    def call_main(*arguments):
        forget_flags()
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("XLA_FLAGS", "")
    yield call_main
    forget_flags()
    signal.signal(signal.SIGTERM, handler)
    jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--config.threat.epsilon=8/255", f"--config.threat.epsilon={8 / 255!r}"),
        ("--config.threat.epsilon=0.5", "--config.threat.epsilon=0.5"),
        ("--config.threat.epsilon=.5/255", f"--config.threat.epsilon={0.5 / 255!r}"),
        ("--config.threat.epsilon=8/0", "--config.threat.epsilon=8/0"),
        ("--config.data.path=/a/8/255", "--config.data.path=/a/8/255"),
        ("--config.threat.epsilon 16/255", f"--config.threat.epsilon {16 / 255!r}"),
        ("--config.data.path=8/255", "--config.data.path=8/255"),
        ("--workdir=8/255", "--workdir=8/255"),
        ("--workdir 8/255", "--workdir 8/255"),
    ],
)
def test_fractions(argument, expected):
    known = {"threat.epsilon": 0.1, "data.path": ""}
    ours = fractions_to_decimals(["main.py", *argument.split()], known)
    assert ours == ["main.py", *expected.split()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config=configs/missing.py"], "configs/missing.py"),
        (
            [DIGITS, "--config.threat.epsilom=0.1"],
            "--config.threat.epsilom: no such key; did you mean --config.threat.epsilon?",
        ),
        (["--config=configs"], "--config=configs: not a config file; name a file"),
        (["--config=mine.py"], "--config=mine.py: not found; name a file"),
        ([DIGITS[9:]], "'configs/digits_at_rwp.py' is not a flag; --config is missing"),
        (["--config=configs/digits_trades.py:l2"], "this file takes nothing after ':'"),
        ([DIGITS, "--config.threat=3"], "--config.threat: no such key; it is a section"),
        ([DIGITS, "--mode=evaluation"], "--mode=evaluation must be one of train, evaluate"),
        (["--mode=pseudo_label"], "--output is missing"),
        (["--mode=pseudo_label", "--output=a.npz", DIGITS], "--config is not for"),
        ([DIGITS, "--output=a.npz"], "--output is for --mode=pseudo_label"),
        ([DIGITS, "--attacks=natural"], "--attacks is for --mode=evaluate"),
        ([DIGITS, "--checkpoint=last"], "--checkpoint=last needs --init_from in --mode=train"),
        ([DIGITS, "--max_restarts=-1"], "--max_restarts=-1 must be an integer of at least 0"),
        ([DIGITS, "--torch_key=model"], "--torch_key=model needs --init_from in --mode=train"),
        ([DIGITS, "--init_from=zoo:nope"], "zoo:nope is not in the zoo; there are zoo:"),
        (
            [DIGITS, "--init_from=nope"],
            "--init_from=nope is not there: it must be a run's directory",
        ),
        ([DIGITS, "--init_from=tests"], "--init_from=tests holds no run"),
        ([DIGITS, "--init_from=main.py"], "--init_from=main.py is no file of torch.save"),
        ([DIGITS, "--extend"], "holds no run that --extend could continue"),
        ([DIGITS, "--extend", "--noresume"], "--extend continues a run, but resume is off"),
        (["--mode=evaluate", "--extend"], "--extend is for --mode=train"),
        (["--mode=evaluate", "--init_from=a"], "--init_from is for --mode=train"),
        (["--mode=evaluate", "--output=a.npz"], "--output is for --mode=pseudo_label"),
        (["--mode=evaluate", DIGITS], "--config is not for --mode=evaluate"),
        (["--mode=evaluate"], "holds no run"),
        (["--mode=pseudo_label", "--output=a.npz"], "holds no run"),
        (
            [DIGITS, "--config.nothing=1"],
            "--config.nothing: no such key; rwp_jax.configs.default lists all keys",
        ),
        ([DIGITS, "--config.epochs=many"], "--config.epochs=many"),
        ([DIGITS, "--config.epochs", "2.5"], "--config.epochs=2.5"),
        ([DIGITS, "--epochs=3"], "epochs"),
        ([DIGITS, "epochs=3"], "'epochs=3' is not a flag: overrides look like --config.epochs=10"),
        (
            ["--mode=explain", "--workdir=a", "b"],
            "'b' is not a flag: separate several directories by commas, --workdirs DIR,DIR",
        ),
        (["--config=configs/cifar10_at.py:l3"], "is 'l3', must be l_inf or l_2"),
        ([DIGITS, "--config.threat.norm=l1"], "must be l_inf or l_2"),
        (["--mode=explain"], "holds no run"),
        ([DIGITS, "--jobs=2"], "--jobs is for --mode=reproduce"),
        (["--mode=reproduce", "--experiment=fig9"], "--experiment=fig9 must be one of table1"),
        (["--mode=reproduce", "--experiment=gamma", "--seeds=0"], "--seeds=0 must be at least 1"),
        (["--mode=report", "--workdirs=nope"], "--workdirs=nope holds no run"),
        ([DIGITS, "--connect_seconds=-1"], "--connect_seconds=-1 must be at least 1"),
        ([DIGITS, "--resume=maybe"], "--resume=maybe must be True or False"),
        (["--mode=report", "--workdirs=a,,b"], "--workdirs=a,,b: an entry between commas is empty"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, arguments, message, tmp_path):
    code, out, err = call(*arguments, f"--workdir={tmp_path / 'run'}")
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("main.py: ") and message in lines[0], lines
    assert not out and not (tmp_path / "run").exists()


def test_inspect_takes_a_path_without_a_flag(call, tmp_path):
    path = tmp_path / "images.npz"
    y = np.arange(10) % 2
    np.savez(path, images=np.zeros((10, 8, 8, 1), np.uint8), labels=y)
    for arguments in ([str(path)], ["--path", str(path)], [str(path), "--config", "digits_at"]):
        code, out, err = call("--mode=inspect", *arguments)
        assert code == 0 and out.startswith(f"{path}: images and labels") and not err
    np.savez(path, x_train=y)
    code, out, err = call(str(path), "--mode=inspect")
    assert code == 1 and "x_train" in out and err.startswith(f"main.py: {path} is unsound: ")
    assert err.count("\n") == 1
    code, out, err = call("--mode=inspect", str(tmp_path / "none"))
    assert code == 2 and not out and err == f"main.py: --path={tmp_path}/none does not exist\n"


@pytest.mark.parametrize(
    ("mode", "path", "key"),
    [("import", "path", "key"), ("import_torch", "torch_checkpoint", "torch_key")],
)
def test_an_import_names_the_flags_of_its_mode(call, mode, path, key, tmp_path):
    file, run = tmp_path / "path=net.npz", tmp_path / "run"
    np.savez(file, **{"a/params/w": np.ones(2), "b/params/w": np.ones(2)})
    given = [f"--mode={mode}", DIGITS, f"--workdir={run}", f"--{path}={file}"]
    code, _, err = call(*given)
    assert code == 2
    assert err == f"main.py: --{path}={file} holds several networks, choose by --{key}: a, b\n"
    code, _, err = call(*given, f"--{key}=c")
    assert err == f"main.py: --{path}={file} has nothing at --{key}=c: it has a, b\n"
    code, _, err = call(*given, f"--{key}=a", "--name_map=none.json")
    assert code == 2 and err.startswith("main.py: --name_map=none.json is no readable JSON")
    other = tmp_path / "net.safetensors"
    entries = {"conv1.weight": np.ones((16, 1, 3, 3)), "linear.bias": np.ones(10)}
    safetensors.numpy.save_file(entries, other)
    code, _, err = call(f"--mode={mode}", DIGITS, f"--workdir={run}", f"--{path}={other}")
    assert code == 2 and err.startswith(f"main.py: --{path}={other} is not a wrn-10-2 (")
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((DIGITS, "--config.epochs=0"), "config.epochs=0 must be at least 1 and below 2^31"),
        (("--mode=inspect",), "--path is missing: --mode=inspect needs it"),
    ],
)
def test_the_process_ends_so_too(tmp_path, arguments, said):
    """Without a line of JAX or absl besides."""
    result = run(*arguments, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 2 and not result.stdout
    assert result.stderr == f"main.py: {said}\n"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("command_line.modes", [DIGITS]),
        ("reproduce.reproduce", ["--mode=reproduce", "--experiment=table1", "--scale=digits"]),
    ],
)
def test_xla_is_configured_before_its_first_use(tmp_path, module, arguments):
    """XLA reads XLA_FLAGS once; what is set later changes nothing, without a word."""
    arguments = ["main.py", *arguments, f"--workdir={tmp_path / 'run'}"]
    program = (
        "import os, sys; from jax._src import xla_bridge; from rwp_jax.command_line import program; "
        f"import rwp_jax.{module} as module; "
        "module.prepare = lambda *dtypes: os._exit(40 + xla_bridge.backends_are_initialized()); "
        f"sys.argv = {arguments}; program.main()"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 40


@pytest.mark.parametrize("flag", ["--config=nosuch", "--devices=two", "--mode=plan"])
def test_a_flag_is_refused_without_a_look_for_devices(flag):
    """A plugin that finds no driver prints a traceback, which would hide the line that counts."""
    program = (
        "import os, sys; from jax._src import xla_bridge; from rwp_jax.command_line import program\n"
        f"sys.argv = ['main.py', '--config=digits_at_rwp', {flag!r}]\n"
        "try: program.main()\n"
        "except SystemExit as end: os._exit(40 * xla_bridge.backends_are_initialized() + end.code)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 2


def test_help_lists_modes_and_flags(call, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rwp-jax", "--help"])
    main()
    out = capsys.readouterr().out
    assert "rwp-jax --mode evaluate --workdir DIR" in out and "--[no]resume" in out


@pytest.mark.parametrize(
    "name", ["digits_at_rwp", "configs/digits_at_rwp.py", "configs/digits_at_rwp"]
)
def test_configs_have_names_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = find_config(f"{name}:l2")
    assert path.endswith("configs/digits_at_rwp.py:l2") and load_config(name).threat.epsilon == 0.3


def test_a_file_of_ones_own_goes_before_the_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits_at.py").write_text("")
    assert find_config("configs/digits_at.py") == "configs/digits_at.py"


def test_the_cifar10_configs_are_the_papers():
    code = """
import importlib
for name in ("at", "at_awp", "at_rwp"):
    module = importlib.import_module(f"rwp_jax.configs.cifar10_{name}")
    for threat in ("linf", "l2"):
        c = module.get_config(threat)
        wp = c.weight_perturbation
        print(c.epochs, c.batch_size, c.threat.norm, round(c.threat.epsilon * 255),
              round(c.attack.step_size * 255), c.attack.steps, c.attack.bn, wp.name, wp.gamma,
              wp.steps, wp.c_min, c.optimizer.learning_rate, c.optimizer.weight_decay)
"""
    result = run(code=code)
    expected = [
        f"200 128 {threat} 10 train {wp} 0.01 10 1.7 0.1 0.0005"
        for wp in ("none", "awp", "rwp")
        for threat in ("l_inf 8 2", "l_2 128 15")
    ]
    assert result.stdout.splitlines() == expected, result.stderr


def test_nothing_but_tfds_needs_tensorflow():
    code = """
import sys
import rwp_jax.command_line.program, rwp_jax.parity.run_cases
from rwp_jax.data import sources
sources.load("digits")
print([m for m in sys.modules if m.split(".")[0] in ("tensorflow", "tensorflow_datasets")])
"""
    assert run(code=code).stdout.strip() == "[]"
