"""Counts floating-point operations of the parts of a training step with XLA's cost analysis.

    python -m benchmarks.flops [--cases preactresnet18:16,wrn-10-1:64]

The unit is one training-mode forward pass of the batch. A PGD step needs a forward pass and the gradient
with respect to its input (2); a weight-ascent step and the update each need a forward pass and the gradient
with respect to the weights (3). XLA counts the body of a loop once, so the loops below show the cost of one
iteration.
"""

import jax
import jax.numpy as jnp

from rwp_jax.attacks.pgd import forward_in_mode, pgd_steps
from rwp_jax.attacks.threat_model import make_threat_model
from rwp_jax.errors import Parser
from rwp_jax.losses import cross_entropy
from rwp_jax.models.classifier import make_classifier
from rwp_jax.models.convolution import prefer_eigen
from rwp_jax.training.objective import Batch
from rwp_jax.training.objectives import make_objective
from rwp_jax.training.weight_ascent import perturb_and_differentiate
from rwp_jax.training.weight_perturbation import make_weight_perturbation


def flops(function, *arguments) -> float:
    cost = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return cost["flops"]


def measure(model: str, batch_size: int) -> dict[str, float]:
    classifier = make_classifier(model, 10)
    params, batch_stats = classifier.init(jax.random.key(0), (32, 32, 3))
    x, y = jnp.zeros((batch_size, 32, 32, 3)), jnp.zeros(batch_size, jnp.int32)
    threat_model = make_threat_model("l_inf", 8 / 255)
    perturbation = make_weight_perturbation("rwp", 0.01, 10, 1.7)
    per_example = make_objective("at").per_example

    def attack(params, x, steps):
        forward = forward_in_mode(classifier, params, "train")
        loss = lambda logits: cross_entropy(logits, y)
        return pgd_steps(
            forward, loss, threat_model, x, x, batch_stats, step_size=0.01, steps=steps
        )

    def perturb(params, x):
        loss = lambda w: per_example(classifier.train, w, Batch(x, x, y))
        return perturb_and_differentiate(loss, params, perturbation)

    unit = flops(classifier.train, params, x)
    return {
        "forward": unit,
        "attack step": flops(attack, params, x, 10) / unit,
        "perturbation step or update": flops(perturb, params, x) / unit,
    }


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="preactresnet18:16,wrn-10-1:64", help="MODEL:BATCH,...")
    args = parser.parse_args()
    prefer_eigen()
    print("model            batch  forward GFLOP  attack step  perturbation step or update")
    for case in args.cases.split(","):
        model, batch_size = case.split(":")
        row = measure(model, int(batch_size))
        print(
            f"{model:16} {batch_size:>5}  {row['forward'] / 1e9:13.2f}  {row['attack step']:11.3f}  "
            f"{row['perturbation step or update']:27.3f}"
        )


if __name__ == "__main__":
    main()
