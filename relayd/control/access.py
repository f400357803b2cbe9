"""Access control of the control server: TCP requests need its token.

Any local user can connect to 127.0.0.1, and the page shows a face. So each request over TCP needs
the token, as `Authorization: Bearer …` or as the cookie that `/?token=…` sets. The unix socket
needs none: its file mode admits only its owner.

A browser sends a cookie to every port of a host, so the cookie contains a digest of the token
instead of the token itself, and its name contains the port. It sets no path: the browser uses the
folder of the opened URL, which is also right below a sub path of a reverse proxy.
"""

import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Scope

from relayd.logs import conceal, printable

_RANDOM_BYTES = 24
"""192 random bits cannot be guessed, and the URL still fits a terminal's line."""
_QUERY = "token"
WHERE_TO_GET_IT = "`relayd status`, on the relay's machine, prints the URL that holds it"


class Proof(Enum):
    """How a request is authenticated."""

    SOCKET = "socket"
    """It came over the unix socket, which is protected by its file mode."""
    BEARER = "bearer"
    """It has the token in its Authorization header, which a foreign page cannot add."""
    COOKIE = "cookie"
    """It has the cookie, which a browser adds by itself, so its origin must be checked."""
    PUBLIC = "public"
    """Its path is public."""


@dataclass(frozen=True, slots=True)
class Token:
    """The token of one server."""

    text: str = field(repr=False)

    def __post_init__(self) -> None:
        """Redact the token and its cookie in all logs, permanently."""
        conceal(self.text, lasting=True)
        conceal(self.cookie, lasting=True)

    @classmethod
    def random(cls) -> "Token":
        """Return a new random token."""
        return cls(secrets.token_urlsafe(_RANDOM_BYTES))

    @property
    def cookie(self) -> str:
        """The cookie's value: a digest from which the token cannot be derived."""
        return hmac.new(self.text.encode(), b"relayd page", sha256).hexdigest()

    def accepts(self, given: str) -> bool:
        """Compare in constant time."""
        return _same(given, self.text)

    def accepts_cookie(self, given: str) -> bool:
        """Compare in constant time."""
        return _same(given, self.cookie)


@dataclass(frozen=True, slots=True)
class Access:
    """The access rules of one server."""

    token: Token = field(default_factory=Token.random)
    host: str = "localhost"
    """Name or address that the server is bound to."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names, `name` or `name:port`, that clients or a reverse proxy use."""
    public: frozenset[str] = frozenset()
    """Paths, without their slash, that need no token."""

    def proof(self, scope: Scope) -> Proof | None:
        """Return how a request is authenticated; None if it is not."""
        if not over_tcp(scope):
            return Proof.SOCKET
        headers = Headers(scope=scope)
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token.accepts(credentials.strip()):
            return Proof.BEARER
        name = cookie_name(headers.get("host", ""))
        if any(map(self.token.accepts_cookie, _cookies(headers, name))):
            return Proof.COOKIE
        if scope["method"] in {"GET", "HEAD"} and scope["path"].removeprefix("/") in self.public:
            return Proof.PUBLIC
        return None

    def login(self, scope: Scope) -> Response | None:
        """Answer `/?token=…` over TCP; None for any other request."""
        if scope["path"] != "/" or scope["method"] != "GET" or not over_tcp(scope):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get(_QUERY)
        if given is None:
            return None
        if not self.token.accepts(given[-1]):
            return refuse_entry(scope, "the token in this URL is wrong, or of an earlier start")
        answer: Response = RedirectResponse("./", 303)
        if _from_a_link(scope):
            answer = HTMLResponse(_page("Opening", "", refresh=True), headers=_POLICY)
        answer.set_cookie(
            cookie_name(Headers(scope=scope).get("host", "")),
            self.token.cookie,
            path=None,
            httponly=True,
            samesite="strict",
        )
        return answer


def refuse_entry(scope: Scope, error: str = "this needs the relay's token") -> Response:
    """Answer 401: a small page for a browser, JSON for other clients."""
    challenge = {"www-authenticate": 'Bearer realm="relayd"'}
    if "text/html" in Headers(scope=scope).get("accept", ""):
        sentence = f"{error[0].upper()}{error[1:]}: {_in_html(WHERE_TO_GET_IT)}."
        page = _page("The page needs a token", sentence, refresh=_from_a_link(scope))
        return HTMLResponse(page, 401, headers=challenge | _POLICY)
    return JSONResponse(error_body(error, WHERE_TO_GET_IT), 401, headers=challenge)


def over_tcp(scope: Scope) -> bool:
    """Whether a request came over TCP; a unix socket's path has no port."""
    server = scope.get("server")
    return server is None or server[1] is not None


def cookie_name(host: str) -> str:
    """Return the cookie's name for a Host header: relays on two ports of a host need two."""
    try:
        port = urlsplit(f"//{host}").port
    except ValueError:
        port = None
    return f"relayd-{port}" if port else "relayd"


def _from_a_link(scope: Scope) -> bool:
    """Whether the request follows another site's link: then a browser omits a strict cookie.

    It also omits it after redirects, but not if a page of ours loads the next one.
    """
    return Headers(scope=scope).get("sec-fetch-site") in {"cross-site", "same-site"}


_POLICY = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}


def _page(title: str, sentence: str, *, refresh: bool) -> str:
    step = '<meta http-equiv="refresh" content="0; url=./">' if refresh else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark">{step}<title>relayd</title></head>'
        f"<body><h1>{title}</h1><p>{sentence}</p></body></html>"
    )


def _in_html(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", text)


def _cookies(headers: Headers, name: str) -> list[str]:
    """Return all values of a cookie, as a browser sends those of all matching paths."""
    pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
    return [value.strip() for key, _, value in pairs if key == name]


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def error_body(error: str, hint: str = "") -> dict[str, str]:
    """Return the JSON of an error; `mend` is what `hint` was called in 0.1, for one release."""
    hint = printable(hint)
    return {"error": printable(error), "hint": hint, "mend": hint}
