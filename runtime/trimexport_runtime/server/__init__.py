"""A bundle behind HTTP on one box; needs `trimexport-runtime[server]`."""
