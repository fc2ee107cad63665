"""Where weights and settings come from: checkpoints on disk or on the hub, adapters, families."""
