"""The one room that starts processes: their environment, limits, streams and end."""
