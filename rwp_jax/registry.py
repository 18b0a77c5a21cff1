"""Networks and objectives by name: the package's own and those that users register."""

import hashlib
import importlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rwp_jax.errors import InputError, first_line


class Origin(NamedTuple):
    """The module that registered a builder, so that a later process can import it again.

    Attributes:
      module: name of the module that called `register`, `__main__` for a script.
      file: path of that module's file, "" if it has none.
    """

    module: str
    file: str


class Registry:
    """Builders by name."""

    def __init__(self, kind: str, builders: dict[str, Callable]):
        """Takes the kind of object that builders return, in words, and the package's own builders."""
        self.kind, self._builders = kind, dict(builders)
        self._origins: dict[str, Origin] = {}

    def __getitem__(self, name: str) -> Callable:
        return self._builders[name]

    def __contains__(self, name: str) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def origin(self, name: str) -> Origin | None:
        """The origin of a registered builder; None for the package's own."""
        return self._origins.get(name)

    def register(self, name: str, builder: Callable, module: dict[str, Any]) -> None:
        """Adds a builder.

        Args:
          name: name of the builder in configs. The same module may register a name again.
          builder: builder, documented at the function that calls this.
          module: globals of the module that registers the builder.

        Raises:
          InputError: if the name is taken or not a word, or the builder is not callable.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise InputError(f"name={name!r} must be a word of letters, digits, and _ . -")
        if not callable(builder):
            raise InputError(f"builder={builder!r} must be a function that returns {self.kind}s")
        file = module.get("__file__") or ""
        origin = Origin(
            module.get("__name__", ""), str(pathlib.Path(file).resolve()) if file else ""
        )
        held = self._origins.get(name)
        if name in self._builders and (held is None or not _same(held, origin)):
            whose = f"registered by {held.file or held.module}" if held else "the package's own"
            raise InputError(f"name={name!r} is taken: it is {whose}")
        self._builders[name], self._origins[name] = builder, origin

    def require(self, name: str, origin: Origin, owner: str) -> None:
        """Imports the module that registers `name`, unless `name` is already registered.

        Args:
          name: name of the builder.
          origin: module that registered the builder when it was used.
          owner: what needs the builder, such as a run; error messages begin with it.

        Raises:
          InputError: if the module cannot be imported or no longer registers the name, or if another
            module has registered it.
        """
        what = f"{owner}: its {self.kind} {name!r} is registered by {origin.file or origin.module}"
        held = self._origins.get(name)
        # A missing file may have moved, and a script is never imported: then any registration is accepted.
        moved = origin.module == "__main__" or not pathlib.Path(origin.file).is_file()
        if held and not _same(held, origin) and not moved:
            raise InputError(
                f"{what}, and here by {held.file or held.module}: load it in a separate process"
            )
        if name in self._builders:
            return
        if origin.module == "__main__":  # importing a script would run all of it
            raise InputError(f"{what}, a script: call rwp_jax.register_{self.kind} first")
        try:
            _import(origin)
        except (Exception, SystemExit) as error:  # whatever the user's module raises
            there = not origin.file or pathlib.Path(origin.file).is_file()
            why = (
                f"{type(error).__name__}: {first_line(error)}" if there else "there is no such file"
            )
            hint = (
                "" if there else "; put the file back, or first import the module that registers it"
            )
            raise InputError(f"{what}, which cannot be imported ({why}){hint}") from None
        if name not in self._builders:
            raise InputError(f"{what}, which no longer registers it")


def _same(one: Origin, other: Origin) -> bool:
    """Compares files if both have one, as all config files are loaded under one module name."""
    return one.file == other.file if one.file and other.file else one.module == other.module


def _import(origin: Origin) -> None:
    """Imports a module by name if the name resolves to the recorded file, otherwise from the file."""
    try:
        found = importlib.util.find_spec(origin.module)
    except (ImportError, ValueError):  # a missing package, a module without a spec
        found = None
    recorded = pathlib.Path(origin.file)
    by_name = found and found.origin and pathlib.Path(found.origin).resolve() == recorded
    if by_name or not origin.file or not recorded.is_file():
        importlib.import_module(origin.module)
        return
    name = f"rwp_jax_registering_{hashlib.sha256(origin.file.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, origin.file)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    beside = str(recorded.parent)  # for its imports, including later ones
    added = beside not in sys.path
    if added:
        sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        if added:
            sys.path.remove(beside)
        raise
