"""From a template and labels to token ids."""
