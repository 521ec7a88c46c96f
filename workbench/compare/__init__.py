"""Evaluations from the page: started as tasks, read back from their files, compared only where they compare."""
