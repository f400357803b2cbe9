"""Reads the statistics of libwebrtc (W3C webrtc-stats)."""

import time
from collections.abc import Mapping
from typing import Any

from relayd.rtc.webrtc.engine import PeerStats


def read_stats(
    report: Mapping[str, Any],
    *,
    sending: bool,
    since: tuple[float, int],
    pictures: int,
    dropped: int,
) -> PeerStats:
    """Return what a report says of the pictures; zeros where it says nothing.

    `since`: when the last report was read, monotonic s, and the bytes carried by then.
    """
    ours = _first(report, "outbound-rtp" if sending else "inbound-rtp")
    reception = _first(report, "remote-inbound-rtp") if sending else ours
    transport = _first(report, "transport", kind=None)
    pair = _path_in_use(report, transport)
    carried = int(_number(transport, "bytes_sent" if sending else "bytes_received"))
    codec = report.get(getattr(ours, "codec_id", None) or "")
    then, carried_then = since
    measured = (reception, "round_trip_time") if sending else (pair, "current_round_trip_time")
    return PeerStats(
        codec=codec.mime_type.partition("/")[2] if codec else "",
        bytes=carried,
        bitrate_kbit=(carried - carried_then) * 8e-3 / max(time.monotonic() - then, 1e-3),
        target_kbit=_number(ours, "target_bitrate") / 1000,
        packets=int(_number(ours, "packets_sent" if sending else "packets_received")),
        packets_lost=int(_number(reception, "packets_lost")),
        jitter=_number(reception, "jitter"),
        round_trip=getattr(*measured, None),
        pictures=pictures,
        pictures_dropped=dropped,
        key_frames=int(_number(ours, f"key_frames_{'encoded' if sending else 'decoded'}")),
        freezes=int(_number(ours, "freeze_count")),
        path=_path(report, pair),
    )


def count_arrivals(report: Mapping[str, Any]) -> int:
    """Count what arrived over the path in use: packets, and answers to its checks."""
    pair = _path_in_use(report, _first(report, "transport", kind=None))
    counts = ("packets_received", "requests_received", "responses_received")
    return int(sum(_number(pair, name) for name in counts))


def _first(report: Mapping[str, Any], type_: str, kind: str | None = "video") -> Any:
    """Return the first entry of a type, of the pictures unless `kind` is None; None if missing."""
    for entry in report.values():
        if entry.type == type_ and (kind is None or entry.kind == kind):
            return entry
    return None


def _path_in_use(report: Mapping[str, Any], transport: Any) -> Any:
    """Return the pair of candidates that a transport uses; None before there is one."""
    return report.get(getattr(transport, "selected_candidate_pair_id", None) or "")


def _number(entry: Any, name: str) -> float:
    """Return a figure of an entry; 0 where entry or figure is missing."""
    return getattr(entry, name, None) or 0


def _path(report: Mapping[str, Any], pair: Any) -> str:
    local = report.get(getattr(pair, "local_candidate_id", ""))
    remote = report.get(getattr(pair, "remote_candidate_id", ""))
    if local is None or remote is None:
        return ""
    protocol = getattr(local, "relay_protocol", None) or local.protocol
    kinds = [str(getattr(one.candidate_type, "value", "")) for one in (local, remote)]
    return f"{'/'.join(kinds)} {protocol}"
