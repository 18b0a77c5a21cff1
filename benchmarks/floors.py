"""Computes floors of a step, an epoch and a whole schedule on absent hardware, as rows of a table.

    python -m benchmarks.floors [--targets h100:1,h100:8,v5e:2x2] [--batch_size 128] [--dtype bfloat16]
        [--configs cifar10_at_rwp,cifar10_trades_rwp] [--models preactresnet18,wrn-34-10]

A target is a GPU with a number of devices, or a TPU slice. Programs are compiled as for `main.py --mode
plan`. Figures that depend on k, the weight-ascent steps per training step, are given for k = 0 and k = K2.
Collectives are counted per step, with the bytes of their operands on a device. Configs of the same network
share the evaluation's program, which differs at most in the normalisation of images.
"""

import sys

from rwp_jax.command_line.config_file import load_config
from rwp_jax.errors import InputError, Parser, as_flags
from rwp_jax.hardware.datasheets import GIB
from rwp_jax.hardware.plan import Plan, check, make_plan
from rwp_jax.hardware.topology import find_hardware, only_compile

HEADER = (
    "| target | config | network | GB a device | kernels and MB of an iteration: attack, perturb "
    "| collectives of a step | ms a step | s an epoch, evaluation | h for the schedule |"
)


def row(target: str, config_name: str, config, plan: Plan) -> str:
    """Returns a line of the table."""
    parts = plan.programs["train"].parts
    loops = ", ".join(
        f"{len(part.kernels)} and {part.bytes / 1e6:,.0f}"
        for name in ("attack", "perturb")
        for part in parts
        if part.name == name
    )

    both = lambda function: " to ".join(function(floors) for floors in plan.floors)
    cells = [
        target,
        config_name,
        f"{config.model.name}, batch {config.batch_size}",
        f"{plan.memory / GIB:.1f} of {plan.hardware.chip.gigabytes}",
        loops,
        both(lambda floors: f"{floors.collectives} of {floors.operand_bytes / 1e6:,.0f} MB"),
        both(lambda floors: f"{1e3 * floors.step:.1f}"),
        both(lambda floors: f"{floors.epoch:.1f}") + f", {plan.floors[0].evaluation:.1f}",
        both(lambda floors: f"{floors.run / 3600:.2f}"),
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="h100:1,h100:8")
    parser.add_argument("--configs", default="cifar10_at_rwp,cifar10_trades_rwp")
    parser.add_argument("--models", default="preactresnet18,wrn-34-10")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    only_compile()
    try:
        cases = [
            (target, find_hardware(target), name, config_of(name, model, args))
            for target in args.targets.split(",")
            for model in args.models.split(",")
            for name in args.configs.split(",")
        ]
        for _, hardware, _, config in cases:
            check(config, hardware)
        print(HEADER)
        print("| --- " * HEADER.count(" | ") + "| --- |")
        evaluations = {}
        for target, hardware, name, config in cases:
            network = target, config.model.name
            plan = make_plan(config, hardware, evaluations.get(network))
            evaluations[network] = plan.programs["evaluate"]
            print(row(target, name, config, plan), flush=True)
    except InputError as error:
        print(f"benchmarks.floors: {as_flags(error, vars(args))}", file=sys.stderr)
        sys.exit(2)


def config_of(name: str, model: str, args):
    """Loads a config and sets what all rows share."""
    config = load_config(f"configs/{name}.py")
    config.model.name, config.dtype = model, args.dtype
    config.batch_size = args.batch_size
    return config


if __name__ == "__main__":
    main()
