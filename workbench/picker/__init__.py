"""Choosing data, models, tokenizers and logs: from what lies in the roots, or by bringing a file along.

A field takes typed text as ever; one line after it adds Browse, and files may be dropped on it:

    c.source = gr.Textbox("pydocs", label="Source", elem_id="wb-data-source")
    picked = component.picker(context, "data", c.source)

The kinds are "data", "model", "tokenizer" and "log". What was chosen is written into the field, whose own `change`
event follows. See `workbench.picker.component` for the rest.
"""
