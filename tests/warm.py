"""What the parent of the forks (forks.py) makes once, beside its imports: the tokenizer of the tests' runs."""

from mygpt2.tokenizer import load_tokenizer

load_tokenizer("gpt2:512")
