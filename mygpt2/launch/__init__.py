"""How ranks come to be: how many, where they meet, and torchrun around them."""
