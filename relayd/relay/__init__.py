"""One relay: its decisions, its parts, and what it tells of itself."""
