"""URLs: what of them may be read, what must not, and what they may name."""
