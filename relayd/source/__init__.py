"""The video source: what it is, reading it, and an even beat out of it."""
