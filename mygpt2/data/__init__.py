"""Text in, batches out: sources, manifest, order, windows, loader. See `loader.Loader` for the one entry point."""
