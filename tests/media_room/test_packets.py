from fractions import Fraction

import av
import pytest

from relayd.media.picture import CodedPicture


@pytest.mark.parametrize(
    ("dts", "pts", "shown_after"),
    [
        (900_000, 900_000, 0.0),
        (900_000, 918_000, 0.2),
        (None, 900_000, 0.0),
        (900_000, 900_000 + 90_000 * 3600, 0.0),  # damaged: an hour ahead
        (900_000, 900_000 - 90_000 * 3600, 0.0),
        (-(2**62), 2**62, 0.0),
    ],
)
def test_a_stamp_is_moved_with_its_reordering_unless_that_is_damaged(
    dts: int | None, pts: int, shown_after: float
) -> None:
    packet = av.Packet(b"coded")
    packet.dts, packet.pts, packet.time_base = dts, pts, Fraction(1, 90_000)
    CodedPicture(packet).restamp(5.0)  # type: ignore[arg-type]  # of no stream, as it is unread
    assert packet.dts == 5 * 90_000
    assert packet.pts == pytest.approx((5 + shown_after) * 90_000)
