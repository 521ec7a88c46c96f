"""Compare: evaluations as tasks, read back from their files, compared only where they compare."""
