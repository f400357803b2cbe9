"""The page: one HTML file with style and script inline, nothing fetched from elsewhere."""

import base64
import hashlib
import re
from html import escape
from importlib.resources import files

from relayd import __version__

_TEMPLATE = files("relayd.control").joinpath("page.html").read_text("utf-8")


def _hashes(tag: str) -> str:
    """Return CSP sources that allow exactly the page's inline blocks of `tag`."""
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", _TEMPLATE, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()) for block in blocks)
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests)


HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes('script')}",
            f"style-src {_hashes('style')}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
}
"""Headers of the page: only its own style, script and pictures work, even with injected text."""


def html(*, has_source: bool) -> str:
    """Return the page, with or without the source next to the result."""
    return _TEMPLATE.replace("{{source}}", "shown" if has_source else "absent").replace(
        "{{version}}", escape(__version__)
    )
