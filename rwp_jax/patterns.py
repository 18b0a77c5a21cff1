"""Choosing by name: shell patterns, comma-separated, as --only takes them."""

import fnmatch


def matches(name: str, patterns: str) -> bool:
    """Whether any of the comma-separated shell patterns matches the name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))
