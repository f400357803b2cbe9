"""The `webrtc` link: WHIP out, WHEP in, over either of two engines.

`link` is the link itself and `signalling` its HTTP; it knows an engine by the interface in
`engine`, and `engines` loads the one to use, `fallback` changes it. `engine_aiortc` has its tracks
in `pictures`, `opus` and `playout`; `engine_libwebrtc` in `libwebrtc_tracks`, over `libwebrtc`.
`sdp`, `playout` and `freezes` are pure.
"""
