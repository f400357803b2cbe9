"""What is read in session descriptions, and corrected in them."""

import pytest

from relayd.errors import JoinRefused
from relayd.rtc.webrtc.engine import Unacceptable
from relayd.rtc.webrtc.sdp import (
    check_description,
    codec_of,
    parsable,
    with_bitrates,
    without_loopback,
    without_unnamed_repairs,
)

HEAD = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
HOST = "a=candidate:1 1 udp 2122194687 192.0.2.2 57193 typ host generation 0"
LOOPBACK = "a=candidate:2 1 udp 2122063615 127.0.0.1 56742 typ host"
LOOPBACK_6 = "a=candidate:3 1 udp 2122063615 ::1 56742 typ host"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 97 96"
CODECS = ["a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"]


def sdp(*lines: str) -> str:
    return "\r\n".join([*HEAD, *lines, ""])


def test_the_codec_is_that_of_the_first_payload_type_and_no_repair() -> None:
    both = ["a=rtpmap:98 H264/90000", *CODECS]
    assert codec_of(sdp(VIDEO, *CODECS)) == "VP8"
    assert codec_of(sdp("m=video 9 X 98 96", *both)) == "H264"
    assert codec_of(sdp("m=video 9 X 96 98", *both)) == "VP8"


@pytest.mark.parametrize("lines", [[], [VIDEO], [VIDEO, "a=rtpmap:97"], ["m=video"]])
def test_a_description_without_a_codec_names_none(lines: list[str]) -> None:
    assert codec_of(sdp(*lines)) == ""


def test_no_video_may_be_another_engines_affair_but_no_description_is_nobodys() -> None:
    with pytest.raises(Unacceptable, match="no video"):
        check_description(sdp("m=video 0 UDP/TLS/RTP/SAVPF 0"), "answer")
    with pytest.raises(JoinRefused, match="is none") as refused:
        check_description("<html>", "answer")
    assert not isinstance(refused.value, Unacceptable)


@pytest.mark.parametrize(
    "odd",
    [
        "a=candidate:x y z",
        "a=candidate:",
        "a=candidate:1 1 udp 2122194687 192.0.2.2 57193",
        "a=candidate:1 1 udp many 192.0.2.2 57193 typ host",
    ],
)
def test_a_candidate_that_cannot_be_parsed_is_left_out(odd: str) -> None:
    assert parsable(sdp(VIDEO, odd, HOST, *CODECS)) == sdp(VIDEO, HOST, *CODECS)


def test_sources_are_left_out_where_that_of_the_repairs_is_not_named() -> None:
    sources = ["a=ssrc:7 cname:x", "a=ssrc-group:FID 0 7"]
    other = ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=ssrc:9 cname:x"]
    kept = without_unnamed_repairs(sdp(VIDEO, *CODECS, *sources, *other))
    assert kept == sdp(VIDEO, *CODECS, *other)


def test_all_else_is_kept_as_it_is() -> None:
    whole = sdp(VIDEO, HOST, *CODECS, "a=ssrc-group:FID 7 8", "a=ssrc:7 cname:x")
    assert parsable(whole) == without_unnamed_repairs(whole) == whole


def test_bitrates_are_bounded_for_each_codec_of_the_pictures_alone() -> None:
    sound = ["m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2"]
    bounded = with_bitrates(sdp(*sound, VIDEO, *CODECS), 300, 1500, 5000)
    bounds = "x-google-min-bitrate=300;x-google-start-bitrate=1500;x-google-max-bitrate=5000"
    lines = bounded.split("\r\n")
    assert f"a=fmtp:96 {bounds}" in lines
    assert f"a=fmtp:97 apt=96;{bounds}" in lines
    assert bounded.count("x-google-min") == 2
    assert lines.index("a=rtpmap:96 VP8/90000") + 1 == lines.index(f"a=fmtp:96 {bounds}")


def test_loopback_is_offered_only_where_there_is_nothing_else() -> None:
    both = sdp(VIDEO, HOST, LOOPBACK, LOOPBACK_6, *CODECS)
    assert without_loopback(both) == sdp(VIDEO, HOST, *CODECS)
    alone = sdp(VIDEO, LOOPBACK, LOOPBACK_6, *CODECS)
    assert without_loopback(alone) == alone
