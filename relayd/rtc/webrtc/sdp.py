"""What relayd reads in session descriptions, and corrects in them, beside aiortc."""

_DIRECTIONS = ("a=sendonly", "a=recvonly", "a=sendrecv", "a=inactive")
_OF_TRANSPORT = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:")
_OF_SENDER = ("a=candidate:", "a=end-of-candidates", "a=ssrc", "a=msid:")


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


def with_unused_sound(answer: str, offer: str) -> str:
    """Return an answer that rejects the offered sound, or ignores it, so that aiortc takes it.

    aiortc wants a section for each that was offered, with codecs and keys. It gets an inactive
    one over the connection of the pictures.
    """
    offered, taken = _section(offer, "audio"), _section(answer, "audio")
    if not offered or (taken and not _is_rejected(taken[0])):
        return answer
    head, *sections = answer.replace("\r\n", "\n").rstrip("\n").split("\nm=")
    kept = ["m=" + section for section in sections if not section.startswith("audio ")]
    if not kept:
        return answer
    unused = _unused(offered, kept[0].splitlines())
    lines = _bundled(head.splitlines(), _mid(kept[0].splitlines()), _mid(offered))
    return "\r\n".join([*lines, *"\n".join(kept).splitlines(), *unused, ""])


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
