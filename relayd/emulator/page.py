"""The emulator's web page: one static document, refreshed by the browser."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884 }
th { font-weight: 600; font-size: .85rem }
pre { background: #8881; padding: 1rem; border-radius: .5rem; overflow: auto }
.scroll { overflow-x: auto } .quiet { opacity: .7 }
"""

_SESSION_COLUMNS = {
    "_id": "session",
    "faceswap_status": "status",
    "age_seconds": "age s",
    "publishers": "in",
    "players": "out",
    "frames_in": "frames in",
    "frames_swapped": "swapped",
    "frames_without_face": "no face",
    "frames_out": "sent",
    "swap_ms": "swap ms",
}
_FAULT_COLUMNS = {
    "fault": "fault",
    "endpoint": "endpoint",
    "session": "session",
    "calls_left": "calls left",
    "acted": "acted",
}


def render(base_url: str, snapshot: Mapping[str, Any] | None) -> str:
    """Return the page; `base_url` is already escaped. Without a snapshot it shows no sessions."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>relayd emulator</title>
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="2">
<style>{_STYLE}</style></head><body>
<h1>relayd emulator</h1>
<p>A stand-in for the live face-swap service: the same HTTP API, WHIP and WHEP instead of
Agora, and a face swap of its own, a warp on the CPU. The service itself is never contacted.</p>
<h2>Point a relay at it</h2>
<pre>[akool]
base_url = "{base_url}"
api_key = "anything"
[rtc]
kind = "webrtc"
publish_url = "{base_url}/rtc/{{channel_id}}/{{front_user_id}}/whip"
play_url = "{base_url}/rtc/{{channel_id}}/{{algorithm_user_id}}/whep"</pre>
{_details(snapshot)}
</body></html>
"""


def _details(snapshot: Mapping[str, Any] | None) -> str:
    if snapshot is None:
        return '<p class="quiet">Sessions and faults are shown on the emulator\'s machine only.</p>'
    return (
        f"<h2>Open sessions</h2>{_table(_SESSION_COLUMNS, snapshot['sessions'])}"
        f"<h2>Faults</h2>{_table(_FAULT_COLUMNS, snapshot['faults'])}"
        f'<p class="quiet">Credit {snapshot["credit"]:g}, '
        f"{len(snapshot['ended'])} sessions ended.</p>"
    )


def _table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return '<p class="quiet">None.</p>'
    head = "".join(f"<th>{title}</th>" for title in columns.values())
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(key))}</td>" for key in columns) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))
