"""A package per tab; its tab.py has `build(context, page)` and the handlers. Below it Gradio is not needed."""
