"""A web server of fixed answers, which notes who asked for what and how."""

from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.web_server import WebServer


@dataclass
class StaticServer(WebServer):
    """Answers with `files` by path: a body, or the address to redirect to after `302 `."""

    files: dict[str, str | bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with each answer."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""

    def url(self, path: str, host: str = "127.0.0.1", login: str = "") -> str:
        return f"http://{login}{host}:{self.port}{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, dict(request.headers)))
        content = self.files.get(request.path)
        body = content.encode() if isinstance(content, str) else content or b""
        if body.startswith(b"302 "):
            request.send_response(302)
            request.send_header("Location", body.removeprefix(b"302 ").decode())
            body = b""
        else:
            request.send_response(404 if content is None else 200)
        for name, text in self.headers.items():
            request.send_header(name, text)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
