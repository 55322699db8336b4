"""Adapters in PEFT's format: their settings, and what these say that the file holds."""
