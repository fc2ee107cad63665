"""Numeric forms of a graph, one scheme a file."""
