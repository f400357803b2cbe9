"""Servers that answer with what is no video, each in a thread of its own."""

import base64
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer


@dataclass(frozen=True)
class Reply:
    """What an HTTP server sends; without a status it hangs up."""

    status: int | None = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class WebServer:
    """An HTTP server, and what it was asked."""

    port: int
    scheme: str = "http"
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""

    def url(self, path: str, login: str = "") -> str:
        return f"{self.scheme}://{login + '@' if login else ''}127.0.0.1:{self.port}/{path}"


@contextmanager
def web_server(
    replies: Mapping[str, Reply], *, login: str = "", certificate: Path | None = None
) -> Iterator[WebServer]:
    """Serve these paths; with a `login`, only to who sends it as Basic."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            served.asked.append((self.path, dict(self.headers)))
            path = self.path.partition("?")[0].strip("/")
            reply = replies.get(path, Reply(404))
            wanted = f"Basic {base64.b64encode(login.encode()).decode()}"
            if login and self.headers.get("authorization") != wanted:
                reply = Reply(401, headers={"WWW-Authenticate": 'Basic realm="camera"'})
            if reply.status is None:
                return
            self.send_response(reply.status)
            if reply.content_type:
                self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Stay silent: clients hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    served = WebServer(server.server_port, "https" if certificate else "http")
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with _running(server):
        yield served


RtspReply = Callable[[str, Mapping[str, str]], str]
"""From method and headers to the answer's first line and headers; an empty one hangs up."""


@contextmanager
def rtsp_server(answer: RtspReply) -> Iterator[int]:
    """Answer each RTSP request; the port."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                method = line.split(b" ")[0].decode()
                headers = {}
                while field_line := self.rfile.readline().strip():
                    name, _, value = field_line.decode().partition(":")
                    headers[name.strip().lower()] = value.strip()
                if not (said := answer(method, headers)):
                    return
                head, _, body = said.partition("\n\n")
                lines = [*head.splitlines(), f"CSeq: {headers.get('cseq', '1')}"]
                if body:
                    lines.append(f"Content-Length: {len(body)}")
                self.wfile.write("\r\n".join([*lines, "", body]).encode())

    class Server(ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Stay silent: clients hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    with _running(server):
        yield server.server_address[1]


SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=camera\nt=0 0\nm=video 0 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:track1\n"
)


def described(setup: str) -> RtspReply:
    """Describe an H.264 stream, and answer SETUP with this status line."""

    def answer(method: str, _headers: Mapping[str, str]) -> str:
        if method == "DESCRIBE":
            return f"RTSP/1.0 200 OK\nContent-Type: application/sdp\n\n{SDP}"
        return f"RTSP/1.0 {setup}" if method == "SETUP" else "RTSP/1.0 200 OK"

    return answer


def self_signed(folder: Path) -> Path:
    """Make a certificate that no CA signed; one file with its key."""
    path = folder / "camera.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=camera",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", folder / "c"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + (folder / "c").read_bytes())
    return path


@contextmanager
def _running(server: ThreadingTCPServer | ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
