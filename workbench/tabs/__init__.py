"""One module per tab: `build(context, page)` and its handlers."""
