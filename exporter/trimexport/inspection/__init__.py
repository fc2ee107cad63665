"""What would be cut of a model, and what it would say."""
