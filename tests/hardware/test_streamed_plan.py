"""The plan of a run whose extra images are streamed."""

import re

import jax
import numpy as np

from rwp_jax.configs import digits_rst
from rwp_jax.data import writing
from rwp_jax.distributed.devices import mesh_of
from rwp_jax.hardware import cost, programs
from rwp_jax.hardware.datasheets import TPUS
from rwp_jax.hardware.topology import Hardware


def test_devices_hold_the_images_of_a_batch_alone(tmp_path):
    images = np.zeros((300, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "extra.npz", image=images, label=np.zeros(300, int))
    writing.write_set(tmp_path / "extra.npz", tmp_path / "extra")
    config = digits_rst.get_config()
    config.data.labeled_examples = config.self_training.epochs = 0
    hardware = Hardware("four", TPUS["v6e"], mesh_of(jax.devices()[:4]), {})
    texts = {}
    for name in ("extra.npz", "extra"):
        config.extra_data.path = str(tmp_path / name)
        assert cost.training_examples(config) == 1437 + 300
        texts[name] = programs.lower_train(config, hardware).as_text()
    all_images = "tensor<1737x8x8x1xui8>"
    batch = f"tensor<{config.batch_size}x8x8x1xui8>"
    arguments = {name: re.search(r"@main\((.*)\) ->", text)[1] for name, text in texts.items()}
    assert all_images in arguments["extra.npz"] and batch not in arguments["extra.npz"]
    assert batch in arguments["extra"] and all_images not in arguments["extra"]
    assert "tensor<1737xi32>" in arguments["extra"], "labels are on the devices"
