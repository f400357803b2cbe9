"""The HTTP client, its proxies and its trusted certificates."""
