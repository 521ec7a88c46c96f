"""The tokenizer bench below its tab: choosing, training, comparing, showing. Knows nothing of Gradio."""
