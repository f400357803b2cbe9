"""Keeps web pages of others away from the control server.

A browser on the same machine reaches 127.0.0.1 for whatever page it shows. So a request
over TCP must name this server as its host (against DNS rebinding: an attacker's name that
suddenly resolves to us), and one that changes something must come from our own page or
from no page at all (against cross-site request forgery). The unix socket is guarded by
its file mode.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HARDENING = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Pictures of a face must not be embedded by other sites.
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware: refuses what a foreign page could have sent; adds hardening headers."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        """Accept `host` as our name, next to localhost and literal addresses."""
        self._app = app
        self._name = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with the reason why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HARDENING.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_hardened)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _over_tcp(scope) and not names_us(host, self._name):
            return refuse(
                421,
                f"this server is not {host[:100]!r}",
                "open it by its address, or by the name in [control] http",
            )
        if scope["method"] in {"GET", "HEAD"}:
            return None
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"} or (
            origin is not None and _netloc(origin) != host.lower()
        ):
            return refuse(403, "another site's page may not control this relay", "use its own page")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            return refuse(415, "Content-Type must be application/json", "send a JSON body")
        return None


def names_us(host: str, own_name: str = "localhost") -> bool:
    """Whether a Host header names this server; a literal address cannot be rebound."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in {"localhost", own_name}:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def refuse(status: int, error: str, mend: str = "") -> JSONResponse:
    """Answer with an error as the API gives all of them."""
    return JSONResponse({"error": error, "mend": mend}, status)


def _over_tcp(scope: Scope) -> bool:
    server = scope.get("server")
    return server is None or server[1] is not None  # a unix socket's path has no port


def _netloc(origin: str) -> str | None:
    """Host and port of an Origin header; None of `null` and of what is no URL."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
