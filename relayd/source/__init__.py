"""The video source: detecting its kind, reading it, and pacing its pictures."""
