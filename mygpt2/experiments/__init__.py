"""Questions that runs answer together: which arm is better, by how much, and what it would take to know."""
