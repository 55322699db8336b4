"""Commands that compare methods, and choose what to merge."""
