"""Looking into data below its tab: sources, their documents, their order, and the batch of a step. No Gradio."""
