"""The prompt and the label words as token ids."""
