"""Child processes: the only package that starts them; their environment, limits and end."""
