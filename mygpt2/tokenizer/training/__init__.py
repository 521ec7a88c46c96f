"""Learning a byte-pair tokenizer from a source, and looking at what was learnt."""
