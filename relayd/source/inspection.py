"""Looks at a source that FFmpeg could not read, to find out why: file, device or server.

Nothing is changed.
"""

from threading import Event
from typing import Final

from relayd.media.causes import Facts
from relayd.media.symptoms import Asked, Symptom
from relayd.source.inspect_path import look_at_path
from relayd.source.inspect_server import LIMIT, PORTS, look_at_server
from relayd.urls.encoding import lacks_encoding

_OF_SERVERS: Final = {Symptom.NOT_MEDIA, Symptom.BROKEN, Symptom.STATUS}
LONGEST_INSPECTION: Final = 3 * LIMIT
"""s, about: to connect, to read, and to try TLS."""


def inspect(symptom: str, asked: Asked, cancelled: Event) -> Facts:
    """Return what can be found out about a source that failed with this symptom.

    Takes up to LONGEST_INSPECTION; over HTTP it ends soon after `cancelled` is set.
    """
    if asked.scheme in ("", "file"):
        return look_at_path(symptom, asked.url)
    if symptom in _OF_SERVERS and asked.scheme in PORTS and not lacks_encoding(asked.url):
        return look_at_server(asked, cancelled)
    return Facts()
