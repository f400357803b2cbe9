"""A local face swap on one CPU core: a classic warp of a photo, not a generative model.

It replaces the remote service in tests and in the demo; its quality is not comparable.
"""

from relayd.emulator.swap.engine import FaceSwapper
from relayd.emulator.swap.likeness import likeness
from relayd.emulator.swap.source import SourceFace, decode_image
from relayd.emulator.swap.stills import DetectedFace, find_faces

__all__ = [
    "DetectedFace",
    "FaceSwapper",
    "SourceFace",
    "decode_image",
    "find_faces",
    "likeness",
]
