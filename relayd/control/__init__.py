"""What a running relay shows and takes: control API, page, metrics, service manager."""
