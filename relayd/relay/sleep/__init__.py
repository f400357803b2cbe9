"""The machine's sleep: sessions are closed before it, and opened again after it."""
