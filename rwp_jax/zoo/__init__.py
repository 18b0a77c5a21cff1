"""A few trained networks that ship with the package, each with a card; larger runs have only a card.

`load_run("zoo:NAME")` loads a network, `python -m rwp_jax.zoo` lists them.
"""
