"""The control API: a relay's status, and commands to it.

| request                               | answer                                              |
|---------------------------------------|-----------------------------------------------------|
| GET /                                 | the page                                            |
| GET /api/status                       | `RelayStatus` as JSON                               |
| GET /healthz                          | 200 while frames flow as configured, else 503       |
| GET /metrics                          | Prometheus text                                     |
| GET /preview/output.mjpeg, .jpg       | what the outputs show                               |
| GET /preview/source.mjpeg, .jpg       | what the source shows; only in the demo             |
| POST /api/face {image, landmarks?}    | switches to another face                            |
| POST /api/pause, /api/resume          | closes the session and shows standby; goes on       |
| POST /api/mute, /api/unmute          | silences the sound; lets it be heard again           |
| POST /api/source/retry                | opens the source again at once                       |
| GET /api/page                         | the page's URL with its token; unix socket only     |

Over TCP each needs the token (relayd.control.access), unless it is public. A POST answers with the
new status; without fields it needs no body. Errors are JSON {error, hint}.
"""

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from relayd import errors
from relayd.control import page
from relayd.control.access import Access, over_tcp
from relayd.control.guard import Guard, refuse
from relayd.control.mjpeg import MotionJpeg, PictureFeed, Viewers, still
from relayd.logs import printable, redact
from relayd.media.delay import Spread
from relayd.relay.metrics import Metrics
from relayd.relay.status import OUTPUT_PENDING, RelayStatus

_LARGEST_BODY = 16 * 1024
"""Bytes; the longest legitimate one contains an image's URL."""
_LONGEST_FIELD = 4096  # characters

_STATUS_CODES: tuple[tuple[type[errors.RelaydError], int], ...] = (
    (errors.UsageError, 400),
    (errors.ConfigError, 400),
    (errors.CredentialsRefused, 403),
    (errors.QuotaExhausted, 403),
    (errors.SessionUnknown, 409),
    (errors.RequestRefused, 422),
    (errors.Throttled, 429),
    (errors.ServiceError, 502),
    (errors.RelaydError, 503),
)
"""HTTP status of each error; the first matching class counts."""


class RelayView(Protocol):
    """The part of a relay that the API uses; called in the event loop."""

    def status(self) -> RelayStatus:
        """Return a snapshot."""

    async def set_face(self, image: str, landmarks: str) -> None:
        """Switch to another face; empty landmarks are detected. Raises RelaydError."""

    async def pause(self) -> None:
        """Close the session and show standby until `resume`. Raises RelaydError."""

    async def resume(self) -> None:
        """Go on after `pause`. Raises RelaydError."""

    async def mute(self) -> None:
        """Silence the sound until `unmute`. Raises RelaydError."""

    async def unmute(self) -> None:
        """Let the sound be heard again. Raises RelaydError."""

    def retry_source(self) -> None:
        """Open the source again at once. Raises RelaydError."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures to show; the source shows the true face and is only for the demo."""

    output: PictureFeed | None = None
    source: PictureFeed | None = None


class ControlApp(Starlette):
    """The ASGI application; with `viewers` the server can end endless streams."""

    viewers: Viewers
    access: Access
    page_url: str | None
    """The page's URL with its token, once it is served over TCP."""


def build_app(
    relay: RelayView,
    metrics: Metrics,
    pictures: Pictures,
    access: Access | None = None,
    *,
    lip_sync: Callable[[], Spread] | None = None,
) -> ControlApp:
    """Build the application; without `access`, TCP clients need a new random token.

    `lip_sync` returns how much later than its picture sound is, where something measures it.
    """
    access = access or Access()
    handlers = _Handlers(relay, metrics, pictures, lip_sync)
    app = ControlApp(
        routes=[
            Route("/", handlers.page),
            Route("/api/status", handlers.status),
            Route("/healthz", handlers.health),
            Route("/metrics", handlers.metrics),
            Route("/preview/{picture}.mjpeg", handlers.motion),
            Route("/preview/{picture}.jpg", handlers.still),
            Route("/api/face", handlers.set_face, methods=["POST"]),
            Route("/api/pause", handlers.pause, methods=["POST"]),
            Route("/api/resume", handlers.resume, methods=["POST"]),
            Route("/api/mute", handlers.mute, methods=["POST"]),
            Route("/api/unmute", handlers.unmute, methods=["POST"]),
            Route("/api/source/retry", handlers.retry_source, methods=["POST"]),
            Route("/api/page", handlers.page_url),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            errors.RelaydError: _answer_relayd_error,
            HTTPException: _answer_http_error,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_fault,
        },
    )
    app.viewers = handlers.viewers
    app.access = access
    app.page_url = None
    return app


class _Json(JSONResponse):
    """JSON that can contain any file name: bytes that are not UTF-8 become escapes."""

    def render(self, content: Any) -> bytes:
        """Encode as ASCII; Python represents such a byte as a lone surrogate."""
        return json.dumps(content, allow_nan=False).encode("ascii")


class _Handlers:
    def __init__(
        self,
        relay: RelayView,
        metrics: Metrics,
        pictures: Pictures,
        lip_sync: Callable[[], Spread] | None,
    ) -> None:
        self._relay = relay
        self._lip_sync = lip_sync
        self._metrics = metrics
        self._feeds = {"output": pictures.output, "source": pictures.source}
        self.viewers = Viewers()

    async def page(self, _: Request) -> Response:
        """Show the page."""
        has_source = self._feeds["source"] is not None
        return HTMLResponse(page.html(has_source=has_source), headers=page.HEADERS)

    async def status(self, _: Request) -> Response:
        """Return the status."""
        return self._status()

    async def health(self, _: Request) -> Response:
        """Report whether frames flow as configured, for monitors and container runtimes."""
        status = self._relay.status()
        text = ": ".join(filter(None, (status.state.text, redact(status.reason))))
        for name, why in status.lost_outputs.items():
            state = "is" if why == OUTPUT_PENDING else "is lost:"
            text += redact(f"\noutput {name} {state} {why}")
        return PlainTextResponse(printable(f"{text}\n"), 200 if status.healthy else 503)

    async def metrics(self, _: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        body, content_type = self._metrics.render(self._relay.status())
        return Response(body, headers={"content-type": content_type})

    async def motion(self, request: Request) -> Response:
        """Stream a picture."""
        return MotionJpeg(self._feed(request), self.viewers)

    async def still(self, request: Request) -> Response:
        """Return one picture."""
        return await still(self._feed(request))

    async def set_face(self, request: Request) -> Response:
        """Switch to another face."""
        fields = await _body(request, {"image": True, "landmarks": False})
        await self._relay.set_face(fields["image"], fields["landmarks"])
        return self._status()

    async def pause(self, request: Request) -> Response:
        """Close the session and show standby."""
        return await self._plain_action(request, self._relay.pause)

    async def resume(self, request: Request) -> Response:
        """End a pause."""
        return await self._plain_action(request, self._relay.resume)

    async def mute(self, request: Request) -> Response:
        """Silence the sound."""
        return await self._plain_action(request, self._relay.mute)

    async def unmute(self, request: Request) -> Response:
        """Let the sound be heard again."""
        return await self._plain_action(request, self._relay.unmute)

    async def retry_source(self, request: Request) -> Response:
        """Open the source again at once."""
        await _body(request, {})
        self._relay.retry_source()
        return self._status()

    async def page_url(self, request: Request) -> Response:
        """Return the page's URL with its token; only over the unix socket."""
        if over_tcp(request.scope):
            raise HTTPException(404)
        return JSONResponse({"url": request.app.page_url})

    async def _plain_action(
        self, request: Request, action: Callable[[], Awaitable[None]]
    ) -> Response:
        await _body(request, {})
        await action()
        return self._status()

    def _status(self) -> Response:
        fields = status_json(self._relay.status())
        if self._lip_sync is not None:
            fields["lip_sync"] = asdict(self._lip_sync())
        return _Json(fields)

    def _feed(self, request: Request) -> PictureFeed:
        feed = self._feeds.get(request.path_params["picture"])
        if feed is None:
            raise HTTPException(404, "there is no such picture")
        return feed


def status_json(status: RelayStatus) -> dict[str, Any]:
    """Return a status as JSON data: the state by name and as text, only finite numbers."""
    fields = asdict(status)
    fields["state"] = status.state.value
    fields["state_words"] = status.state.text
    fields["on_demand"] = status.on_demand.value
    fields["reason"] = redact(status.reason)
    finite: dict[str, Any] = _finite(fields)
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


async def _body(request: Request, known: dict[str, bool]) -> dict[str, str]:
    """Parse a JSON object of texts; `known` says of each field whether it is required.

    An empty body is an empty object. Raises HTTPException that names the wrong field.
    """
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _LARGEST_BODY:
            raise HTTPException(413, f"the body is larger than {_LARGEST_BODY} bytes")
    try:
        fields = json.loads(raw or b"{}")
        json.dumps(fields, ensure_ascii=False).encode()  # refuse lone surrogates
    except (ValueError, RecursionError) as fault:
        raise HTTPException(400, "the body is not JSON") from fault
    if not isinstance(fields, dict):
        raise HTTPException(400, "the body is not a JSON object")
    if unknown := sorted(set(fields) - set(known)):
        expected = ", ".join(known) or "none"
        raise HTTPException(400, f"{unknown[0][:60]}: unknown field (known: {expected})")
    for name, needed in known.items():
        value = fields.setdefault(name, "")
        if not isinstance(value, str) or len(value) > _LONGEST_FIELD:
            raise HTTPException(400, f"{name}: must be text of at most {_LONGEST_FIELD} characters")
        if needed and not value.strip():
            raise HTTPException(400, f"{name}: is needed")
    return fields


async def _answer_relayd_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.RelaydError)  # starlette's handler type is wider
    status = next(code for kind, code in _STATUS_CODES if isinstance(error, kind))
    return refuse(status, redact(error.message), redact(error.hint))


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # starlette's handler type is wider
    response = refuse(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=400)


async def _answer_fault(_: Request, __: Exception) -> Response:
    """Answer after a bug of ours; starlette raises it again, so that it is logged."""
    return refuse(500, "relayd failed to answer", "its log says why")
