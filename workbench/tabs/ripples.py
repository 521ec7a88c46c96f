"""The ripples tab."""

from __future__ import annotations

import gradio as gr

from workbench import html
from workbench.context import Context
from workbench.page import Page


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    gr.HTML(html.empty("This tab is being built."))
