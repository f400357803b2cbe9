"""The token of the servers that the tests start, and how it is sent."""

from relayd.control.access import Token

TOKEN = Token("a-token-for-the-tests")
BEARER = {"Authorization": f"Bearer {TOKEN.text}"}


def raw_get(path: str) -> bytes:
    """Return a whole GET request as sent over the wire."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN.text}\r\n\r\n"
    ).encode()
