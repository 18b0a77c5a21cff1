"""Evaluates a gradient-masking defence, which AutoAttack overrates; an adaptive attack comes closer.

    pip install ".[train]"
    python examples/masked_gradients.py

The network comes from the zoo and was adversarially trained on scikit-learn's digits. The defence returns
only the predicted class. This changes no prediction and makes no image more robust, but it leaves APGD and
FAB without a gradient and Square without a margin to lower. The adaptive attack takes its gradients from
the logits behind the prediction (BPDA; Athalye et al., 2018); verdicts are still those of the defence.
"""

import functools

import jax
import numpy as np

import rwp_jax


def main(images: int = 60, epsilon: float = 0.2, **arguments) -> dict[str, int]:
    """Returns by attack how many of `images` test images are robust; `arguments` go to autoattack."""
    run = rwp_jax.load_run("zoo:digits_at_rwp")
    x, y = run.test_images[:images].astype(np.float32) / 255, run.test_labels[:images]
    logits_fn = functools.partial(
        run.classifier.eval, *jax.device_get((run.params, run.batch_stats))
    )
    masked = lambda x: 10 * jax.nn.one_hot(logits_fn(x).argmax(-1), 10)

    attack = functools.partial(rwp_jax.autoattack, x=x, y=y, epsilon=epsilon, **arguments)
    found = {
        "without the defence": attack(logits_fn),
        "with it, standard": attack(masked),
        "with it, adaptive": attack(masked, gradient_fn=logits_fn),
    }
    for name, result in found.items():
        print(
            f"{name}: {result.robust.sum()} of {images} images are robust",
            *result.warnings,
            sep="\n  ",
        )
    return {name: int(result.robust.sum()) for name, result in found.items()}


if __name__ == "__main__":
    main()
