"""A few trained networks that come with the package, each with a card; larger runs as cards alone.

`load_run("zoo:NAME")` loads one, `python -m rwp_jax.zoo` lists them.
"""
