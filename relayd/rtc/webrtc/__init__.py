"""The `webrtc` link: WHIP out, WHEP in, over aiortc.

`link` is the link itself and `signalling` its HTTP; `engine_aiortc` is one connection, with the
tracks of `pictures` and `opus`. `playout` and `sdp` are pure.
"""
