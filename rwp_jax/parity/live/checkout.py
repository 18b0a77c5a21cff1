"""Loads the authors' own classes and functions from the user's checkout of their repository.

Their scripts cannot be imported: at import they parse arguments, download data and require CUDA and
torchvision. Single definitions are therefore extracted from them; modules without such requirements are
loaded whole.
"""

import ast
import importlib.util
import pathlib
import sys
import types
from typing import Any, NamedTuple

from rwp_jax.errors import InputError, first_line

REPOSITORY = "github.com/ChaojianYu/Robust-Weight-Perturbation"
AT, TRADES, RST = "AT_AWP_RWP", "trades_AWP_RWP", "RST_AWP_RWP"
FOLDERS = {"at": AT, "trades": TRADES, "rst": RST}
MODULES = (
    f"{AT}/preactresnet.py",
    f"{AT}/wideresnet.py",
    f"{AT}/utils_awp.py",
    f"{AT}/utils_rwp.py",
    f"{TRADES}/models/wideresnet.py",
    f"{TRADES}/utils_awp.py",
    f"{TRADES}/utils_rwp.py",
    f"{RST}/models/wideresnet.py",
    f"{RST}/losses.py",
    f"{RST}/utils_awp.py",
    f"{RST}/utils_rwp.py",
)
AT_SCRIPT = f"{AT}/train_cifar10.py"
TRADES_SCRIPT = f"{TRADES}/train_trades_cifar.py"
RST_SCRIPT = f"{RST}/robust_self_training.py"
DEFINITIONS = {  # file: functions and constants extracted from it
    f"{AT}/utils.py": ("cifar10_mean", "cifar10_std"),
    AT_SCRIPT: ("mu", "std", "normalize", "upper_limit", "lower_limit", "clamp", "attack_pgd"),
    TRADES_SCRIPT: ("perturb_input", "train"),
    RST_SCRIPT: ("train",),
}


class Checkout(NamedTuple):
    """`modules` maps paths to loaded modules, `definitions` paths to the code of extracted definitions."""

    modules: dict[str, types.ModuleType]
    definitions: dict[str, types.CodeType]

    def defined(self, path: str, **given: Any) -> dict[str, Any]:
        """Executes the definitions of `path`; `given` holds the other names that they use."""
        exec(self.definitions[path], given)
        return given


def _module(path: pathlib.Path, name: str) -> types.ModuleType:
    """Loads one file under a unique name, since files of different folders share names."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _defines(node: ast.stmt) -> set[str]:
    """Returns the names that a statement defines, if it is a function or an assignment."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)}


def _definitions(path: pathlib.Path, wanted: tuple[str, ...]) -> types.CodeType:
    """Compiles the wanted definitions of a file without the code around them."""
    body = [n for n in ast.parse(path.read_text(), str(path)).body if _defines(n) & set(wanted)]
    missing = set(wanted).difference(*map(_defines, body))
    if missing:
        raise InputError(f"--reference: {path} does not define {', '.join(sorted(missing))}")
    return compile(ast.Module(body, []), str(path), "exec")


def read_checkout(directory: pathlib.Path) -> Checkout:
    """Loads the modules and definitions of a checkout; this executes the modules' code.

    Raises:
      InputError: if files or definitions are missing or cannot be loaded.
    """
    if not directory.is_dir():
        raise InputError(
            f"--reference={directory} is not a directory, must be a checkout of {REPOSITORY}"
        )
    missing = [name for name in (*DEFINITIONS, *MODULES) if not (directory / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"--reference={directory} is not a checkout of {REPOSITORY}: it lacks {missing[0]}{more}"
        )
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # keep the checkout clean
    try:
        modules = {
            name: _module(
                directory / name, "upstream_" + name.removesuffix(".py").replace("/", "_")
            )
            for name in MODULES
        }
        definitions = {name: _definitions(directory / name, d) for name, d in DEFINITIONS.items()}
    except InputError:
        raise
    except Exception as error:  # a modified file may raise anything
        raise InputError(
            f"--reference={directory} cannot be loaded: {type(error).__name__} {first_line(error)}"
        ) from None
    finally:
        sys.dont_write_bytecode = written
    return Checkout(modules, definitions)
