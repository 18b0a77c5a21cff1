"""Tables, pictures and HTML reports of runs. Nothing here computes with JAX."""
