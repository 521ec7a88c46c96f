"""Data: sources, their documents, their order, and the batch of a step."""
