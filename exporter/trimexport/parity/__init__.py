"""A bundle compared with the untrimmed model."""
