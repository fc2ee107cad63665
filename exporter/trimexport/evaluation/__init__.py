"""How good a bundle's answers are, on texts whose right answers are known."""
