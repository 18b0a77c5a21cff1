"""Pictures that `--mode explain` wrote to a run's directory, for reports."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from rwp_jax.files import write_json
from rwp_jax.report.page import Picture, Section
from rwp_jax.report.results import Result

DIRECTORY, FILE = "explain", "pictures.json"


def write_pictures(output: pathlib.Path, pictures: Sequence[Picture]) -> None:
    """Writes the list of pictures with their captions."""
    write_json(output / FILE, {picture.path.name: picture.caption for picture in pictures})


def explained(results: Sequence[Result]) -> Iterator[Section]:
    """Yields a section for each explained checkpoint of the runs."""
    for result in results:
        for listed in sorted((result.directory / DIRECTORY).glob(f"*/{FILE}")):
            try:
                captions = json.loads(listed.read_text(encoding="utf-8"))
                found = [Picture(listed.parent / name, text) for name, text in captions.items()]
            except (OSError, ValueError, AttributeError):
                continue
            heading = f"{result.directory.name}, {listed.parent.name.replace('_', ' ')}"
            yield Section(heading, [picture for picture in found if picture.path.is_file()])
