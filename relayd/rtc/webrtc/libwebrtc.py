"""The one place that imports wrtc, libwebrtc for Python.

It prints to stderr, and its threads last as long as the process.
"""

import webrtc as library

library.allow_loopback()  # for a machine that has no other address; see sdp.without_loopback

__all__ = ["library"]
