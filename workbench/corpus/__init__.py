"""What runs were trained on, for every tab that shows it: opened sources, and the batch of a step."""
