"""Scales pictures that are already I420, with libswscale."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from relayd.media.frames import I420, Geometry, black, plan_fit, planes


class Scaler:
    """Fits pictures of any even size into one geometry, complete, between dark bars.

    Keeps its swscale context while the size stays the same; used in one thread only.
    """

    def __init__(self, target: Geometry) -> None:
        self._target = target
        self._reformatter = VideoReformatter()

    def fit(self, picture: I420) -> I420:
        """Return `picture` itself when its size fits, else a scaled and centred copy."""
        if picture.shape == self._target.shape:
            return picture
        rows, width = picture.shape
        plan = plan_fit(width, rows * 2 // 3, 1.0, self._target, "pad")
        frame = VideoFrame.from_ndarray(picture, format="yuv420p")
        resized = self._reformatter.reformat(frame, *plan.scaled, "yuv420p")
        scaled = np.ascontiguousarray(resized.to_ndarray(), np.uint8)
        if scaled.shape == self._target.shape:
            return scaled
        fitted = black(self._target)
        for part, whole in zip(planes(scaled), planes(fitted), strict=True):
            halves = whole.shape[1] * 2 // self._target.width  # 2 for luma, 1 for chroma
            left, top = plan.offset[0] * halves // 2, plan.offset[1] * halves // 2
            whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        return fitted
