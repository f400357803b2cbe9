"""The real-time link: one process, one connection each way, newest picture first."""
