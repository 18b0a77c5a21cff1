"""`python -m rwp_jax.parity --reference CHECKOUT`: checks the input, runs the settings, prints tables."""

import importlib.util
import pathlib
import time
from collections.abc import Callable

import jax

from rwp_jax.errors import InputError
from rwp_jax.files import check_free, write_text
from rwp_jax.parity.live.checkout import read_checkout
from rwp_jax.parity.live.setting import all_settings
from rwp_jax.report.page import write_page

FORMATS = (".md", ".html")


def _check_output(output: pathlib.Path | None) -> None:
    if output and output.suffix not in FORMATS:
        raise InputError(f"--output={output} must end in {' or '.join(FORMATS)}")
    if output:
        check_free("output", output)


def _check_torch(device: str) -> None:
    """Raises InputError if PyTorch or its device is missing."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "--reference runs PyTorch code and needs the package torch (its CPU build is enough): "
            "pip install torch"
        )
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device=cuda: PyTorch finds no CUDA here; --device=cpu needs none")


def run(
    reference: pathlib.Path,
    device: str,
    steps: int | None,
    output: pathlib.Path | None,
    select: Callable[[list[str]], list[str]],
    tolerance: float,
) -> int:
    """Prints the comparison setting by setting.

    Args:
      reference: the user's checkout of the authors' repository.
      device: device that it runs on, `cpu` or `cuda`.
      steps: training steps of every setting; None for `setting.STEPS`.
      output: .md or .html file for the same tables, or None.
      select: maps the names of all settings to those to run.
      tolerance: tolerance of the errors in float64.

    Returns:
      The number of settings that failed.

    Raises:
      InputError: for bad input, before anything is compiled.
    """
    if steps is not None and steps < 1:
        raise InputError(f"--steps={steps} must be at least 1")
    _check_output(output)
    settings = {setting.name: setting for setting in all_settings(steps)}
    chosen = [settings[name] for name in select(list(settings))]
    _check_torch(device)
    checkout = read_checkout(reference)
    import torch

    from rwp_jax.parity.live import render
    from rwp_jax.parity.live.both_sides import compare_setting

    about = (
        f"torch {torch.__version__} on {device}, jax {jax.__version__} on {jax.default_backend()}; "
        f"tolerance {tolerance:.0e} in float64"
    )
    most = max(setting.steps for setting in chosen)
    print("\n".join([about, *render.LEGEND, "", render.text_header(most)]), flush=True)
    began, results = time.monotonic(), []
    for setting in chosen:
        results.append(compare_setting(checkout, setting, device, tolerance))
        print("\n" + render.text(results[-1], most), flush=True)
    failed = sum(result.failed for result in results)
    stopped = sum(bool(result.stopped) for result in results)
    cannot = f", {stopped} that upstream cannot run" if stopped else ""
    minutes = (time.monotonic() - began) / 60
    summary = f"{len(results)} settings, {failed} failed{cannot}; {minutes:.1f} minutes"
    print(f"\n{summary}")
    if output:
        about = f"{about}. {summary}."
        if output.suffix == ".md":
            write_text(output, render.markdown(results, about))
        else:
            introduction = [about, *render.LEGEND]
            write_page(output, "Parity with upstream", introduction, render.sections(results))
        print(f"wrote {output}")
    return failed
