"""The machine's sleep: sessions are closed before it, and looked at again after it."""
