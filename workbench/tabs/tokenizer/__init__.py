"""Tokenizer: choosing, training, comparing, showing."""
