"""Models and the world outside: Hugging Face folders, hub and cards, pickles of others; every direction by name."""
