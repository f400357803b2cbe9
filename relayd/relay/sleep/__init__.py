"""Suspend of the computer: sessions are closed before it and may be opened again after it."""
