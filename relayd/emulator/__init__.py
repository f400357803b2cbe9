"""The local stand-in of the face-swap service: its HTTP API, RTC and swap engine."""
