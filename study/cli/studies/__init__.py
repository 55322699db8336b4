"""Commands that create studies, run them and tell how far they are."""
