"""Text from two models for the page, made by a worker process: the web server never loads torch."""
