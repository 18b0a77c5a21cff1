"""Programs for hardware that is not there: compiled, counted and held against its data sheet."""
