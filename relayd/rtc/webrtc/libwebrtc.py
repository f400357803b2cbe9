"""The one place that imports wrtc, libwebrtc for Python.

It prints to stderr, and its threads last as long as the process.
"""

import webrtc as library

library.allow_loopback()  # for a machine that has no other address; see sdp.without_loopback
# Hand out a picture once it is complete: evenness is the output clock's affair, 25 ms earlier.
library.field_trials["WebRTC-ForcePlayoutDelay"] = "min_ms:0,max_ms:0"

__all__ = ["library"]
