"""Reads networks that other JAX programs saved, and makes runs of imported networks."""
