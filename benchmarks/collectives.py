"""What devices exchange in one AT-RWP step, and how long that takes beside its arithmetic.

    python -m benchmarks.collectives [--cases preactresnet18:128,wrn-34-10:128] [--devices 8,16,64]
        [--bandwidth 450,50,12.5] [--latency 20] [--flops 400] [--steps 10]
        [--gradient_dtype bfloat16] [--per_device_batch_norm]

The exchanges are counted in the traced step, nothing is compiled or run. A batch is the global one. Times
are arithmetic, not measured: a ring of n devices moves 2 (n - 1) / n of a sum's bytes over each link and
n - 1 times a gathered vector's; each exchange costs the latency besides (XLA joins those of the gradients,
which do not wait for each other, into one); metrics are left out; the network's products run at the given
rate; nothing overlaps.
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.recipe import K1, rwp_recipe
from rwp_jax.cost import forward_flops
from rwp_jax.models.classifier import make_classifier
from rwp_jax.parallel import AXIS
from rwp_jax.train_step import attack_and_update, init_state

SHAPE, CLASSES = (32, 32, 3), 10
SUMS, GATHERS = ("psum",), ("all_gather", "reduce_scatter")
PARTS = {("scan",): "attack step", ("while",): "pass at w + v", (): "the rest"}


class Exchange(NamedTuple):
    """Bytes that each device adds to a sum, or hands to every other device."""

    summed: int
    gathered: int

    def moved(self, devices: int) -> float:
        """Bytes over a link of a ring."""
        return 2 * (devices - 1) / devices * self.summed + (devices - 1) * self.gathered


def bytes_of(variables) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)


def exchanges(jaxpr, path=()):
    """(loops it is in, Exchange) of every exchange of a traced function."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in SUMS:
            yield path, Exchange(bytes_of(equation.invars), 0)
        elif equation.primitive.name in GATHERS:
            own = min(bytes_of(equation.invars), bytes_of(equation.outvars))
            yield path, Exchange(0, own)
        inside = path + (equation.primitive.name,) * (equation.primitive.name in ("scan", "while"))
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from exchanges(inner, inside)


def exchanged(model: str, gradient_dtype: str = "", per_device_batch_norm: bool = False):
    """Part of the step -> its exchanges."""
    recipe = rwp_recipe(model, 1.7)._replace(
        classifier=make_classifier(
            model, CLASSES, axis_name=None if per_device_batch_norm else AXIS
        ),
        gradient_dtype=gradient_dtype,
        per_device_batch_norm=per_device_batch_norm,
    )
    state = jax.eval_shape(lambda key: init_state(recipe, key, SHAPE), jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)
    y = jax.ShapeDtypeStruct((2,), jnp.int32)
    step = lambda state, x, y: attack_and_update(recipe, state, x, y, x, AXIS)
    jaxpr = jax.make_jaxpr(step, axis_env=[(AXIS, 2)])(state, x, y).jaxpr
    parts = {name: [] for name in PARTS.values()}
    for path, exchange in exchanges(jaxpr):
        parts[PARTS[path]].append(exchange)
    return parts


def count_gradients(model: str) -> int:
    """How many arrays a gradient has, each of which is a sum over devices."""
    params = jax.eval_shape(
        lambda key: make_classifier(model, CLASSES).init(key, SHAPE)[0], jax.random.key(0)
    )
    return len(jax.tree.leaves(params))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="preactresnet18:128,wrn-34-10:128", help="MODEL:BATCH")
    parser.add_argument("--devices", default="8,16,64")
    parser.add_argument("--bandwidth", default="450,50,12.5", help="of a link, GB/s each way")
    parser.add_argument("--latency", type=float, default=20, help="of an exchange, microseconds")
    parser.add_argument("--flops", type=float, default=400, help="of a device in use, TFLOP/s")
    parser.add_argument("--steps", type=float, default=10, help="k, steps of weight ascent")
    parser.add_argument("--gradient_dtype", default="")
    parser.add_argument("--per_device_batch_norm", action="store_true")
    args = parser.parse_args()
    for case in args.cases.split(","):
        model, batch = case.split(":")
        parts = exchanged(model, args.gradient_dtype, args.per_device_batch_norm)
        print(f"{model}, global batch {batch}, K1 = {K1}, k = {args.steps:g}")
        for name, part in parts.items():
            size = sum(exchange.summed + exchange.gathered for exchange in part)
            print(f"  {name:14} {len(part):4} exchanges, {size / 1e6:8.3f} MB from each device")
        passes = args.steps + 1
        times = {"attack step": K1, "pass at w + v": passes, "the rest": 1}
        waits = sum(times[name] * len(part) for name, part in parts.items())
        waits -= passes * (count_gradients(model) - 1)
        if (
            args.per_device_batch_norm
        ):  # the running statistics at the end, which are averaged together
            waits -= len(parts["the rest"]) - 2
        print(f"  in a step {waits:.0f} that wait for each other, those of a gradient as one")
        work = int(batch) * forward_flops(model, SHAPE, CLASSES) * (2 * K1 + 3 * passes)
        print("  devices  images each  arithmetic ms  " + "exchange ms at GB/s, speed-up over one")
        for n in map(int, args.devices.split(",")):
            compute = work / n / (args.flops * 1e12)
            columns = []
            for bandwidth in map(float, args.bandwidth.split(",")):
                moved = sum(
                    times[name] * sum(exchange.moved(n) for exchange in part)
                    for name, part in parts.items()
                )
                exchange = moved / (bandwidth * 1e9) + waits * args.latency / 1e6
                speedup = n * compute / (compute + exchange)
                columns.append(f"{bandwidth:g}: {1e3 * exchange:.1f}, {speedup:.1f}x")
            print(
                f"  {n:7}  {int(batch) / n:11g}  {1e3 * compute:13.1f}  {'   '.join(columns)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
