"""Tables, pictures and a page of finished runs. Nothing here computes with JAX."""
