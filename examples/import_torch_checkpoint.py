"""Imports a PyTorch checkpoint as a run and evaluates it.

    pip install ".[train]"
    python examples/import_torch_checkpoint.py

The checkpoint is a state dict in a safetensors file, which needs no PyTorch. Here it holds a network of the
zoo under the names of the authors' PyTorch class. Files of `torch.save` need torch. On the command line,
`python main.py --mode import` does the same.
"""

import pathlib
import tempfile

import numpy as np
import safetensors.numpy

import rwp_jax
from rwp_jax.configs import digits_at_rwp
from rwp_jax.pytorch.export import own_entries
from rwp_jax.pytorch.import_ import import_torch


def main(images: int = 60, **arguments) -> float:
    """Returns the robust accuracy in % on the first test images; `arguments` go to AutoAttack."""
    theirs = rwp_jax.load_run("zoo:digits_at_rwp")
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = pathlib.Path(directory, "theirs.safetensors")
        entries = own_entries(theirs)
        # Kernels are transposed views in PyTorch's layout, and safetensors ignores strides.
        entries = {name: np.ascontiguousarray(value) for name, value in entries.items()}
        safetensors.numpy.save_file(entries, checkpoint)

        # The config names the network, the normalisation of pixels and the threat model of training.
        workdir = pathlib.Path(directory, "run")
        import_torch(digits_at_rwp.get_config(), workdir, checkpoint)
        run = rwp_jax.load_run(workdir, "last")

        x = run.test_images[:images]
        print("largest difference of a logit:", np.abs(run.predict(x) - theirs.predict(x)).max())
        record = rwp_jax.benchmark(run, norm="l_inf", epsilon=0.3, examples=images, **arguments)
    print(f"clean {record['clean_acc']} %, robust {record['autoattack_acc']} %")
    return float(record["autoattack_acc"])


if __name__ == "__main__":
    main()
