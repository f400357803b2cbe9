"""Where pip is configured to look for packages, and the links of an index page.

Pages are those of PEP 503 (HTML) and PEP 691 (JSON). Only parsing: nothing is fetched here.
"""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

DEFAULT: Final = "https://pypi.org/simple"
ACCEPT: Final = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2,"
    " text/html;q=0.1"
)
_SECTIONS: Final = (":env:", "install", "download", "global")
"""Sections of pip's settings, the highest priority first."""
_FALSE: Final = frozenset({"", "0", "false", "no", "off", "n", "f"})


@dataclass(frozen=True, slots=True)
class Places:
    """Where pip would look for a package."""

    pages: tuple[str, ...]
    """URLs of pages that link to files of the package."""
    folders: tuple[Path, ...] = ()
    """Local folders with package files."""


def places(package: str, config: str) -> Places:
    """Read the output of `pip config list`."""
    settings = dict(_settings(config))

    def values(name: str) -> list[str]:
        found = (settings.get(f"{section}.{name}") for section in _SECTIONS)
        return next((value for value in found if value is not None), "").split()

    links = values("find-links")
    folders = tuple(path for path in map(_local, links) if path is not None)
    pages = [link for link in links if _local(link) is None]
    if "".join(values("no-index")).lower() in _FALSE:
        indexes = [*(values("index-url") or [DEFAULT]), *values("extra-index-url")]
        pages += [_page(index, package) for index in indexes]
    return Places(tuple(pages), folders)


def link(page_url: str, page: bytes, filename: str) -> str | None:
    """Return the URL of a file that a page links to, None if it does not."""
    for name, url in _links(page):
        if name == filename:
            return _with_login(urljoin(page_url, url.partition("#")[0]), page_url)
    return None


def _settings(config: str) -> Iterator[tuple[str, str]]:
    for line in config.splitlines():
        name, _, quoted = line.partition("=")
        try:
            value = ast.literal_eval(quoted)
        except (ValueError, SyntaxError):  # another line of pip's output
            continue
        yield name, str(value)


def _local(place: str) -> Path | None:
    """Return the folder that an entry of find-links names, if it names one."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(place)


def _page(index: str, package: str) -> str:
    page = f"{index.rstrip('/')}/{package}/"
    return f"{page}index.html" if page.startswith("file:") else page


def _links(page: bytes) -> Iterator[tuple[str, str]]:
    """Return name and URL of each file on a page; nothing for any other content."""
    text = page.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        anchors = _Anchors()
        anchors.feed(text)
        yield from ((_name_in(url), url) for url in anchors.urls)
        return
    files = document.get("files") if isinstance(document, dict) else None
    for file in files if isinstance(files, list) else ():
        if isinstance(file, dict):
            yield str(file.get("filename", "")), str(file.get("url", ""))


def _name_in(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _with_login(url: str, page_url: str) -> str:
    """Add the page's user and password to a link to the same host, as pip does."""
    there, here = urlsplit(url), urlsplit(page_url)
    login, at, host = here.netloc.rpartition("@")
    if at and (there.scheme, there.netloc) == (here.scheme, host):
        return urlunsplit(there._replace(netloc=f"{login}@{host}"))
    return url


class _Anchors(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a link."""
        if tag == "a":
            self.urls += [value for name, value in attrs if name == "href" and value]
