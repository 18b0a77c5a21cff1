"""A PyTorch checkpoint becomes a run that can be evaluated.

    python examples/import_torch_checkpoint.py

The checkpoint is a state dict as safetensors, which needs no PyTorch; here the network of the zoo under the
names of the authors' PyTorch class. For a file of `torch.save`, install torch. `python main.py --mode
import_torch` is the same on the command line.
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
    """Robust accuracy on the first test images; `arguments` are autoattack's."""
    theirs = rwp_jax.load_run("zoo:digits_at_rwp")
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = pathlib.Path(directory, "theirs.safetensors")
        entries = own_entries(theirs)
        # safetensors ignores strides, and our kernels are transposed views in PyTorch's layout.
        entries = {name: np.ascontiguousarray(value) for name, value in entries.items()}
        safetensors.numpy.save_file(entries, checkpoint)

        # The config says which network it is, how pixels are normalised and what it was trained for.
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
