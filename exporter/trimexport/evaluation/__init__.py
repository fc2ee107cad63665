"""The quality of a bundle's answers, on texts whose right answers are known."""
