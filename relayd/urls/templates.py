"""URL templates over a session's fields, like `https://host/{channel_id}/whip`."""

from collections.abc import Mapping
from string import Formatter
from urllib.parse import quote, urlsplit

from relayd.urls.quoting import plain_name

TEMPLATE_FIELDS = ("channel_id", "front_user_id", "algorithm_user_id", "session_id", "app_id")
"""What a template may name. Not the token: URLs end up in logs."""


def check_template(template: str) -> str:
    """Return the template, or raise a ValueError that says what is wrong with it."""
    fill_url(template, dict.fromkeys(TEMPLATE_FIELDS, "x"))
    return template


def fill_url(template: str, values: Mapping[str, str]) -> str:
    """Fill a template in, values percent-encoded.

    Raises ValueError for an unknown placeholder, one whose value is empty, a stray brace or
    a result that is no HTTP URL.
    """
    url = ""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as fault:
        raise ValueError(f"{fault} (write a brace as {{{{)") from fault
    for literal, name, spec, conversion in pieces:
        url += literal
        if name is None:
            continue
        if name not in values or spec or conversion:
            known = ", ".join(f"{{{known}}}" for known in values)
            raise ValueError(f"{{{plain_name(name)}}} is no field of a session; use {known}")
        if not values[name]:
            raise ValueError(f"{{{name}}} is empty for this session")
        url += quote(values[name], safe="")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("it must be an http:// or https:// URL")
    return url
