"""What FFmpeg's options for HTTP mean to a request that relayd makes itself."""

from collections.abc import Mapping
from typing import Final

REDIRECTIONS: Final = frozenset({301, 302, 303, 307, 308})
"""The statuses of an answer that leads elsewhere."""


def request_headers(options: Mapping[str, str], *, user_agent: str) -> dict[str, str]:
    """Return the headers that a user's options ask for; `user_agent` unless they name one.

    As in FFmpeg, a line of `headers` counts more than the option of the same meaning.
    """
    headers = {"User-Agent": options.get("user_agent", user_agent)}
    if referer := options.get("referer"):
        headers["Referer"] = referer
    if cookies := options.get("cookies"):
        lines = [line for line in cookies.splitlines() if "=" in line]
        headers["Cookie"] = "; ".join(line.partition(";")[0] for line in lines)
    for line in options.get("headers", "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def ca_file(options: Mapping[str, str]) -> str | None:
    """Return the file of CA certificates that a user's options name; None without one."""
    return options.get("ca_file", options.get("cafile"))
