"""What relayd reads in session descriptions, and corrects in them, beside the engines."""

import re

from relayd import logs
from relayd.errors import JoinRefused
from relayd.rtc.webrtc.engine import LARGEST_SDP, Unacceptable

_LONGEST_QUOTE, _LONGEST_REASON = 40, 120
"""Characters of an SDP, and of a library's message, that an error repeats."""
_NO_CODECS = {"rtx", "red", "ulpfec", "flexfec-03"}
_DIRECTIONS = ("a=sendonly", "a=recvonly", "a=sendrecv", "a=inactive")
_CANDIDATE = re.compile(r"a=candidate:\S+ [12] \w+ \d+ \S+ \d+ typ [a-z]+( .*)?$")
"""A candidate that can be parsed (RFC 8839 §5.1)."""
_LOOPBACK = re.compile(r"a=candidate:\S+ \d+ \w+ \d+ (127\.[\d.]+|::1) ")
_OF_TRANSPORT = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:")
_OF_SENDER = ("a=candidate:", "a=end-of-candidates", "a=ssrc", "a=msid:")


def check_description(sdp: str, kind: str) -> None:
    """Raise JoinRefused for what is no session description, Unacceptable for one without video."""
    if len(sdp) > LARGEST_SDP or not sdp.startswith("v=0"):
        beginning = logs.excerpt(sdp, _LONGEST_QUOTE)
        raise JoinRefused(f"the SDP {kind} is none: it begins {beginning!r}, {len(sdp)} bytes")
    if direction_of(sdp, "video") == "inactive":
        raise Unacceptable(f"the SDP {kind} has no video")


def describe_fault(fault: Exception) -> str:
    """Name a library's error, and what it says in short."""
    return f"{type(fault).__name__} {logs.excerpt(str(fault), _LONGEST_REASON)}".strip()


def direction_of(sdp: str, kind: str) -> str:
    """Read the direction of the first section of a kind; sendrecv is the default (RFC 8866 §6.7).

    "inactive" when there is no such section, or it is rejected.
    """
    section = _section(sdp, kind)
    if not section or _is_rejected(section[0]):
        return "inactive"
    for line in section:
        if line in _DIRECTIONS:
            return line[2:]
    return "sendrecv"


def has_opus(sdp: str) -> bool:
    """Whether Opus is among the codecs for sound."""
    return any(
        line.startswith("a=rtpmap:") and " opus/48000" in line.lower()
        for line in _section(sdp, "audio")
    )


def codec_of(answer: str) -> str:
    """Read the video codec that an answer chose: that of its first payload type; "" without one."""
    section = _section(answer, "video")
    names = dict(
        line.removeprefix("a=rtpmap:").split(" ", 1)
        for line in section
        if re.match(r"a=rtpmap:\d+ \S", line)
    )
    for payload_type in section[0].split()[3:] if section else ():
        name = names.get(payload_type, "").partition("/")[0]
        if name and name.lower() not in _NO_CODECS:
            return name
    return ""


def parsable(sdp: str) -> str:
    """Return a description without candidates that cannot be parsed: one would spoil them all."""
    lines = _lines(sdp).split("\n")
    odd = [one for one in lines if one.startswith("a=candidate:") and not _CANDIDATE.match(one)]
    return "\r\n".join(line for line in lines if line not in odd) + "\r\n" if odd else sdp


def without_unnamed_repairs(sdp: str) -> str:
    """Return a description without the sources of a section whose repairs have none.

    GStreamer writes "FID 0", with which libwebrtc shows nothing; without, it finds the sources by
    their packets.
    """
    head, *sections = _lines(sdp).split("\nm=")
    kept = [head]
    for section in sections:
        lines = section.split("\n")
        if any(re.match(r"a=ssrc-group:FID( \d+)* 0( |$)", line) for line in lines):
            lines = [line for line in lines if not line.startswith("a=ssrc")]
        kept.append("\n".join(lines))
    return "\r\n".join("\nm=".join(kept).split("\n")) + "\r\n"


def with_bitrates(sdp: str, lowest: int, first: int, highest: int) -> str:
    """Return a description that bounds what libwebrtc sends to it, in kbit/s."""
    bounds = f"x-google-min-bitrate={lowest};x-google-start-bitrate={first}"
    bounds += f";x-google-max-bitrate={highest}"
    section = _section(sdp, "video")
    bounded = {line.split()[0] for line in section if line.startswith("a=fmtp:")}
    lines, in_video = [], False
    for line in _lines(sdp).split("\n"):
        if line.startswith("m="):
            in_video = line.startswith("m=video ")
        codec = re.match(r"a=(rtpmap|fmtp):(\d+) (.*)", line) if in_video else None
        lines.append(f"{line};{bounds}" if codec and codec[1] == "fmtp" else line)
        if codec and codec[1] == "rtpmap" and f"a=fmtp:{codec[2]}" not in bounded:
            lines.append(f"a=fmtp:{codec[2]} {bounds}")
    return "\r\n".join(lines) + "\r\n"


def without_loopback(sdp: str) -> str:
    """Return a description without loopback candidates, unless it has no other.

    RFC 8445 §5.1.1.1 keeps them out. A relay and an emulator on a machine whose only interface
    that is up is `lo` can still connect.
    """
    lines = _lines(sdp).split("\n")
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    if all(_LOOPBACK.match(line) for line in candidates):
        return sdp
    return "\r\n".join(line for line in lines if not _LOOPBACK.match(line)) + "\r\n"


def with_unused_sound(answer: str, offer: str) -> str:
    """Return an answer that rejects the offered sound, or ignores it, so that aiortc takes it.

    aiortc wants a section for each that was offered, with codecs and keys. It gets an inactive
    one over the connection of the pictures.
    """
    offered, taken = _section(offer, "audio"), _section(answer, "audio")
    if not offered or (taken and not _is_rejected(taken[0])):
        return answer
    head, *sections = _lines(answer).split("\nm=")
    kept = ["m=" + section for section in sections if not section.startswith("audio ")]
    if not kept:
        return answer
    unused = _unused(offered, kept[0].splitlines())
    lines = _bundled(head.splitlines(), _mid(kept[0].splitlines()), _mid(offered))
    return "\r\n".join([*lines, *"\n".join(kept).splitlines(), *unused, ""])


def _lines(sdp: str) -> str:
    return sdp.replace("\r\n", "\n").rstrip("\n")


def _unused(offered: list[str], pictures: list[str]) -> list[str]:
    """Return the offered section as inactive, over the transport of the answered pictures."""
    keys = [line for line in pictures if line.startswith(_OF_TRANSPORT)]
    kept = [
        line
        for line in offered
        if line not in _DIRECTIONS and not line.startswith((*_OF_TRANSPORT, *_OF_SENDER))
    ]
    return [*kept, *keys, "a=inactive"]


def _bundled(head: list[str], pictures: str, sound: str) -> list[str]:
    kept = [line for line in head if not line.startswith("a=group:BUNDLE")]
    return [*kept, f"a=group:BUNDLE {pictures} {sound}"]


def _mid(section: list[str]) -> str:
    return next((line[len("a=mid:") :] for line in section if line.startswith("a=mid:")), "0")


def _is_rejected(media_line: str) -> bool:
    return media_line.split()[1:2] == ["0"]


def _section(sdp: str, kind: str) -> list[str]:
    """Return the lines of the first section of a kind, without their ends."""
    _, found, section = ("\n" + sdp).partition(f"\nm={kind} ")
    if not found:
        return []
    section, _, _ = section.partition("\nm=")
    return [line.strip() for line in f"m={kind} {section}".splitlines()]
