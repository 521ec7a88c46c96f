"""Monitor: what a run does, as functions over run folders."""
