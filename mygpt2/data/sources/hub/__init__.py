"""Datasets of the Hugging Face hub, read by ranges."""
