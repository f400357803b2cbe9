"""Settings: every key, and the reading of them from file, environment and command line."""
