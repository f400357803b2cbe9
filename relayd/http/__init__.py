"""HTTP as a client: the one place over httpx, its proxies and whom it trusts."""
