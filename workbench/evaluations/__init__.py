"""Evaluations as tasks: what is started, and what earlier ones found."""
