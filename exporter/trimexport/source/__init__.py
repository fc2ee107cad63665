"""The sources of weights and settings: checkpoints on disk or on the hub, adapters, families."""
