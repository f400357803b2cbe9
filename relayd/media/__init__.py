"""FFmpeg through PyAV: video input (decode) and output (encode)."""
