"""Commands that look at what was found, and write models."""
