"""A look at a model before a build: what would be cut of it, and the words that it would say."""
