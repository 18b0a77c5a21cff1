"""Measures how XLA's options for GPUs change the time of a training step.

    python -m benchmarks.xla_options [--model preactresnet18] [--batch_size 128] [--dtype bfloat16]
        [--k 10] [--options "default;not autotuned;..."] [--json FILE]

Each option runs `benchmarks.step_time` in a separate process, since XLA reads XLA_FLAGS once. The first
option is the baseline and is measured again at the end: the ratio of the two shows the noise.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from rwp_jax.errors import Parser
from rwp_jax.files import write_json

COMMAND_BUFFERS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION"
OPTIONS = {
    "default": "",
    "loops in command buffers": f"--xla_gpu_enable_command_buffer={COMMAND_BUFFERS},WHILE,CONDITIONAL",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "deterministic": "--xla_gpu_deterministic_ops=true",
    "deterministic, autotuned": "--xla_gpu_exclude_nondeterministic_ops=true",
    "not autotuned": "--xla_gpu_autotune_level=0",
    "cuDNN fusions": "--xla_gpu_cudnn_gemm_fusion_level=2",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
}


def step_seconds(args, flags: str) -> tuple[float, float] | str:
    """Returns the seconds of a step and of its compilation with these flags, or an error message."""
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "step_time.json"
        command = [
            sys.executable,
            "-m",
            "benchmarks.step_time",
            "--rivals",
            "",
            "--json",
            str(file),
        ]
        command += ["--model", args.model, "--batch_sizes", str(args.batch_size)]
        command += ["--dtype", args.dtype, "--k", str(args.k), "--repeats", str(args.repeats)]
        command += ["--seconds", str(args.seconds)]
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        if result.returncode:
            lines = (result.stderr or result.stdout).strip().splitlines()
            return lines[-1] if lines else f"exit code {result.returncode}"
        row = json.loads(file.read_text())["rows"][0]
        return row["seconds"], row["compile_seconds"]


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="preactresnet18")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--k", type=int, default=10, help="steps of weight ascent")
    parser.add_argument("--options", default=";".join(OPTIONS), help="names, separated by ;")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="minimum duration of a measurement"
    )
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    args = parser.parse_args()
    names = args.options.split(";")
    for name in names:
        if name not in OPTIONS:
            parser.error(f"--options: {name!r} must be one of {'; '.join(OPTIONS)}")
    content = {"command": "python -m benchmarks.xla_options " + " ".join(sys.argv[1:]), "rows": []}
    baseline = None
    print("option                          ms  of the first  compiling s")
    for name in [*names, *names[:1]]:
        measured = step_seconds(args, OPTIONS[name])
        row = {"option": name, "flags": OPTIONS[name]}
        if isinstance(measured, str):
            print(f"{name:26}  {measured}", flush=True)
            row["failed"] = measured
        else:
            seconds, compiling = measured
            baseline = baseline or seconds
            row |= {"seconds": seconds, "compile_seconds": compiling}
            ratio = seconds / baseline
            print(f"{name:26}  {1e3 * seconds:8.1f}  {ratio:12.3f}  {compiling:11.1f}", flush=True)
        content["rows"].append(row)
        if args.json:
            write_json(args.json, content)


if __name__ == "__main__":
    main()
