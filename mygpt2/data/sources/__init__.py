"""Text that can be read block by block, in any order: local files, the hub, the built-in corpus."""
