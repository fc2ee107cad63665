"""Words that may stand for the labels, compared on examples."""
