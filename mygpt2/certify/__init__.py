"""A file that says what a run was, and the proof of it: parts of the run trained again from its checkpoints."""
