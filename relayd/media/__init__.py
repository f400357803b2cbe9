"""FFmpeg by way of PyAV: pictures in (decode) and out (encode)."""
