"""The proxies that the environment names; never one for this machine's own addresses.

`HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` (or in lower case, which wins, as with curl) name a
proxy for each scheme; `NO_PROXY` lists hosts that are reached without one. This machine itself
is never reached through a proxy. An invalid variable is an error only for a request that needs it.
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from relayd.errors import ConfigError
from relayd.urls.safe import MediaUrl, shown

_SOCKS = ("socks5", "socks5h")
_SCHEMES = ("http", "https", *_SOCKS)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the variable that names it."""

    url: str
    """From the variable, with a scheme; it may hold a password."""
    variable: str
    """The variable's name, as spelt in the environment."""

    @property
    def public_url(self) -> str:
        """The URL as it may be shown: scheme, host and port, never user and password."""
        return shown(self.url)

    @property
    def description(self) -> str:
        """The variable and its value, for errors."""
        return f"{self.variable}={self.public_url}"


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy for `url`; None to connect directly, also for an invalid URL.

    Raises ConfigError when the variable that applies cannot be used.
    """
    environment = os.environ if environment is None else environment
    try:
        parts = urlsplit(url)
    except ValueError:  # sending to it reports the error
        return None
    host = _host(parts)
    named = _named(environment, f"{parts.scheme}_proxy", "all_proxy")
    if not named or is_loopback(host) or _is_excepted(host, _port(parts), environment):
        return None
    variable, value = named
    proxy = Proxy(value if "://" in value else f"http://{value}", variable)
    MediaUrl(proxy.url).conceal()  # connection errors may quote it
    _require_usable(proxy)
    return proxy


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def _named(environment: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """Return the first of these variables that is set, in lower case before upper case."""
    for name in names:
        for variable in (name, name.upper()):
            if value := environment.get(variable, "").strip():
                return variable, value
    return None


def _is_excepted(host: str, port: int | None, environment: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names the host: by name, domain, address, network, each with a port or not.

    Any other entry matches no host.
    """
    found = _named(environment, "no_proxy")
    entries = found[1].replace(",", " ").split() if found else ()
    return any(_names_host(entry.lower(), host, port) for entry in entries)


def _names_host(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    entry = entry.partition("://")[2] or entry
    try:
        network = ip_network(entry.strip("[]") if "/" not in entry else entry, strict=False)
    except ValueError:
        network = None
    if network is not None:
        return address is not None and address in network
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit():
        return int(wanted) == port and _names_host(name, host, port)
    domain = entry.removeprefix("*").removeprefix(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _require_usable(proxy: Proxy) -> None:
    try:
        parts = urlsplit(proxy.url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range, half an address in brackets
        raise _unusable(proxy.variable, "it is no URL") from None
    if parts.scheme not in _SCHEMES:
        raise _unusable(proxy.variable, f"a proxy cannot be a {parts.scheme}:// URL")
    if not has_host or any(character.isspace() for character in proxy.url):
        raise _unusable(proxy.variable, "it names no host")
    if parts.scheme in _SOCKS and importlib.util.find_spec("socksio") is None:
        fault = (
            f"{proxy.description} (environment): a SOCKS proxy needs the package socksio;"
            f' pip install "httpx[socks]", name an HTTP proxy, or unset {proxy.variable}'
        )
        raise ConfigError([fault])


def _unusable(variable: str, why: str) -> ConfigError:
    fix = f'give a proxy like "http://proxy.example:3128", or unset {variable}'
    return ConfigError([f"{variable} (environment): {why}; {fix}"])


def _host(parts: SplitResult) -> str:
    try:
        return (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
