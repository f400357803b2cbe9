"""The face-swap service: its API, and the journal of sessions that it bills."""
