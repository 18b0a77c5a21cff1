"""Says in words what a file is that is no checkpoint, by its first bytes and the names in it."""

import pathlib
import tarfile
import zipfile

_MAGIC = (  # (first bytes, what such a file is)
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "compressed by xz: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x93NUMPY", "a single array of NumPy (.npy)"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x08\x03\x12", "an ONNX model"),
    (b"GGUF", "a GGUF file"),
)
_OLD_TORCH = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # begins torch.save's files before 1.6
PICKLE = "a file of pickle.dump"
_READ = 4096  # bytes
_LISTED = 3  # names listed of an archive


def describe(path: pathlib.Path) -> str:
    """Returns what a file is, such as `an HTML page`, or "" if it cannot be told.

    Args:
      path: an existing file.
    """
    if not path.stat().st_size:
        return "empty"
    if tarfile.is_tarfile(path):
        return _tar(path)
    with path.open("rb") as file:
        start = file.read(_READ)
    if zipfile.is_zipfile(path):
        return _zip(path)
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive that is cut short: fetch it again"
    for magic, words in _MAGIC:
        if start.startswith(magic):
            return words
    if start[:1] == b"\x80" and _OLD_TORCH not in start[:32]:
        return PICKLE
    return _text(start)


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _tar(path: pathlib.Path) -> str:
    try:
        with tarfile.open(path) as archive:
            names = archive.getnames()
    except (tarfile.TarError, OSError, EOFError):
        return "a tar archive that is cut short: fetch it again"
    return f"a tar archive ({_listed(names)}): unpack it first"


def _zip(path: pathlib.Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a damaged zip archive: fetch it again"
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return "a TorchScript archive: save the module's state_dict() instead"
    if "data.pkl" in inner:
        return ""  # one of torch.save
    if names and all(name.endswith(".npy") for name in names):
        return f"an npz of NumPy ({_listed(names)})"
    return f"a zip archive ({_listed(names)}), not one of torch.save: unpack it first"


def _text(start: bytes) -> str:
    """Names a text by its beginning; "" for anything else."""
    try:
        text = start.decode("utf-8", "strict" if len(start) < _READ else "ignore").lstrip(
            "\ufeff \t\r\n"
        )
    except UnicodeDecodeError:
        return ""
    if any(ord(character) < 32 and character not in "\t\r\n" for character in text):
        return ""
    first = text[:200].lower()
    if first.startswith(("<!doctype html", "<html", "<head")) or "<html" in first:
        return "an HTML page, perhaps a login or an error of the download: fetch the file itself"
    if first.startswith(("<?xml", "<")):
        return "an XML text, perhaps an error of the download"
    if first.startswith(("{", "[")):
        return "a JSON text"
    return f"a text ({text.splitlines()[0][:40]!r})" if text else "blank"
