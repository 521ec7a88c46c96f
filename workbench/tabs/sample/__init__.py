"""Sample: text from two models, made by a worker process, for the web server never loads torch."""
