"""What the relay shows, and where: camera, streams, previews."""
