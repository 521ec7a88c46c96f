"""What the monitor tab shows and does, as functions over run folders. Knows nothing of Gradio."""
