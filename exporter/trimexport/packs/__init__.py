"""Backbones without a task, the packs that complete them, and bundles of the two."""
