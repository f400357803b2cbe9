"""URLs: which parts may be shown, which must stay secret, and what they may name."""
