"""The three MediaPipe nets, run by OpenCV's DNN module."""

from pathlib import Path
from threading import Lock
from typing import Any, final

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
"""uint8; OpenCV's stubs have no element types, so this has none either."""
Floats = NDArray[Any]
"""float32, or float64 where nothing depends on it."""

MODELS = Path(__file__).parent.parent / "models"

_READING = Lock()
"""OpenCV fills the importer's table of operators at its first use, and not safely for threads:
two that read a net at once can find operators "not implemented"."""

cv2.setNumThreads(1)  # a second thread gains 5 % here and takes a core from the video codec


@final
class Net:
    """One loaded net. Not thread-safe: every thread loads its own."""

    def __init__(self, file: str, outputs: tuple[str, ...]) -> None:
        # OpenCV 5's new engine drops all outputs but one of these nets.
        options: dict[str, Any] = (
            {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}
        )
        with _READING:
            self._net = cv2.dnn.readNetFromTFLite(str(MODELS / file), **options)
        self._outputs = outputs

    def run(self, rgb: Floats) -> list[Floats]:
        """Feed one picture, shape (size, size, 3), RGB in the net's own range; outputs by name."""
        self._net.setInput(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]))
        return [np.asarray(out, np.float32) for out in self._net.forward(self._outputs)]


def short_range_net() -> Net:
    """BlazeFace for faces within about 2 m; input 128x128, -1..1."""
    return Net("face_detection_short_range.tflite", ("regressors", "classificators"))


def full_range_net() -> Net:
    """BlazeFace for small faces, three times as slow; input 192x192, -1..1."""
    return Net(
        "face_detection_full_range.tflite",
        ("reshaped_regressor_face_4", "reshaped_classifier_face_4"),
    )


def landmark_net() -> Net:
    """The 468-point face mesh; input 192x192, 0..1."""
    return Net("face_landmark.tflite", ("conv2d_21", "conv2d_31"))
