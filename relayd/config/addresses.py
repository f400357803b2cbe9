"""Validation of hosts, ports and web addresses in settings."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from relayd.urls.safe import MediaUrl


def check_port(url: str) -> None:
    """Raise ValueError for an impossible host or port; the message quotes neither."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the host must be a name or an address, like h.example or [::1]") from None
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port must be 1 to 65535") from None
    if port == 0:
        raise ValueError("the port must be 1 to 65535")


def check_web_url(url: MediaUrl, fix: str) -> None:
    """Raise ValueError for anything but an http(s) URL; `fix` says what to give."""
    text = url.reveal()
    check_port(text)
    parts = urlsplit(text)
    is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    if not is_web or any(not character.isprintable() or character == " " for character in text):
        raise ValueError(fix)


def parse_address(text: str) -> tuple[str, int]:
    """Parse `host:port` or `[v6]:port`; raises ValueError that says what is wrong."""
    parts = urlsplit(f"//{text}")
    try:
        port = None if set("/?#@") & set(text) else parts.port
    except ValueError as fault:
        raise ValueError("the port must be 0 to 65535") from fault
    if not parts.hostname or port is None:
        raise ValueError('give host and port, like "127.0.0.1:8642"')
    return parts.hostname, port


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches this host; of all names, only localhost surely does."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
