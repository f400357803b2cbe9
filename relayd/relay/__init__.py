"""One relay: its decisions, its parts and its status."""
