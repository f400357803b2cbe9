"""Protects the control server from other users and from foreign web pages.

Over TCP a request must name this server as its host (against DNS rebinding: an attacker's name
that suddenly resolves to us) and have the token (see relayd.control.access). One that changes
something must come from our own page or from no page at all (against cross-site request forgery:
a browser adds the cookie to requests of any page).
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relayd.control.access import Access, Proof, error_body, over_tcp, refuse_entry

_HARDENING = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Pictures of a face must not be embedded by other sites.
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware that checks each request and adds hardening headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Protect `app` by the rules of `access`."""
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with a reason."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HARDENING.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope)
        await (answer or self._app)(scope, receive, send_hardened)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the answer to a login or a refused request; None passes it on."""
        access = self._access
        host = Headers(scope=scope).get("host", "")
        if over_tcp(scope) and not names_us(host, access.host, *access.allowed_hosts):
            return refuse(
                421,
                f"this server is not {host[:100]!r}",
                "open it by its address, or add the name to [control] allowed_hosts",
            )
        if (login := access.login(scope)) is not None:
            return login
        proof = access.proof(scope)
        if proof is None:
            return refuse_entry(scope)
        if scope["method"] in {"GET", "HEAD"}:
            return None
        return _forged(scope, proof, access) or _odd_body(scope)


def names_us(host: str, *names: str) -> bool:
    """Whether a Host header names this server: by one of `names`, as localhost, or by an address.

    A literal address cannot be rebound. Ports are ignored.
    """
    if (name := _hostname(host)) is None:
        return False
    if name == "localhost" or name in map(_hostname, names):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def refuse(status: int, error: str, hint: str = "") -> JSONResponse:
    """Return an error in the API's format."""
    return JSONResponse(error_body(error, hint), status)


def _forged(scope: Scope, proof: Proof, access: Access) -> Response | None:
    """Refuse a request that another site's page may have sent.

    A browser names the page's origin with each POST. Without it, and with only the cookie, only
    JSON is accepted: for that a browser asks the server first (a CORS preflight).
    """
    headers = Headers(scope=scope)
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    is_own = origin is not None and _is_own_origin(origin, headers.get("host", ""), access)
    is_foreign = site not in {None, "same-origin", "none"} or (origin is not None and not is_own)
    is_named = is_own or site == "same-origin" or _media_type(headers) == "application/json"
    if is_foreign or (proof is Proof.COOKIE and not is_named):
        return refuse(403, "another site's page may not control this relay", "use its own page")
    return None


def _is_own_origin(origin: str, host: str, access: Access) -> bool:
    netloc = _netloc(origin)
    return netloc == host.lower() or netloc in {name.lower() for name in access.allowed_hosts}


def _odd_body(scope: Scope) -> Response | None:
    headers = Headers(scope=scope)
    is_empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    if is_empty or _media_type(headers) == "application/json":
        return None
    return refuse(
        415, "Content-Type must be application/json", "send JSON with that type, or no body"
    )


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname or None
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    """Return host and port of an Origin header; None for `null` and for an invalid URL."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
