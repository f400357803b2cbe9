"""The number of a picture, drawn into it as a row of black and white blocks.

Order, loss and delay can be read from it after any coding and scaling.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BITS: Final = 16
HEIGHT_SHARE: Final = 8
"""The row of blocks takes the upper eighth of the picture."""


def number_of(luma: NDArray[np.uint8]) -> int:
    """Read the number from a picture's luma, shape (height, width), of any size."""
    height, width = luma.shape
    row = height // HEIGHT_SHARE // 2
    block = width / BITS
    middles = [luma[row - 2 : row + 3, int((bit + 0.5) * block)].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, middle in enumerate(middles) if middle > 125)


def draw(picture: NDArray[np.uint8], number: int) -> None:
    """Draw a number into a picture of shape (height, width, …)."""
    height, width = picture.shape[:2]
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        picture[: height // HEIGHT_SHARE, left:right] = 255 if number >> bit & 1 else 0


def ffmpeg_filter(width: int, height: int) -> str:
    """Return the filter by which the ffmpeg program draws the number of each frame."""
    block, row = width // BITS, height // HEIGHT_SHARE
    boxes = [f"drawbox=x=0:y=0:w={width}:h={row}:c=black:t=fill"]
    boxes += [
        f"drawbox=x={bit * block}:y=0:w={block}:h={row}:c=white:t=fill"
        f":enable=gt(bitand(n\\,{1 << bit})\\,0)"
        for bit in range(BITS)
    ]
    return ",".join(boxes)
