"""Settings: all keys, and reading them from file, environment and command line."""
