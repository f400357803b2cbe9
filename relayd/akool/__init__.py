"""The face-swap service: its API, and the book of sessions that it bills."""
