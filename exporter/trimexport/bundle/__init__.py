"""The files of a bundle, written and written again."""
