"""A real language model, two experts made from it, and the scripts that made them."""
