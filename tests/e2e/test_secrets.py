"""No secret is shown anywhere: each place that can hold one has a marker, and all is searched.

| place                                              | how it is tried                          |
|----------------------------------------------------|------------------------------------------|
| source.url: user info, query, path                 | a camera that refuses; check; validation |
| source.options                                     | a live relay; check; validation          |
| output.url: RTMP key, SRT passphrase, streamid     | a live relay whose receivers are away    |
| output.url: RTSP user info and query               | a live relay whose receivers are away    |
| face.image: user info, query, token in the path    | live, changed, refused, fetched by check |
| akool.base_url: user info                          | a service that refuses; sessions close   |
| akool.api_key: file, AKOOL_API_KEY, RELAYD_, --set | live; refused; wrong types               |
| akool.client_secret, the token bought with it      | a service that quotes it                 |
| systemd credentials                                | a service that quotes it; not UTF-8      |
| rtc.publish_url, rtc.play_url: user info, query    | live; refused by the server              |
| the answer of create: RTC token                    | a service that quotes it later           |
| errors of the service that quote URL, key, token   | JSON, HTML, escaped JSON, cut in two     |
| WHIP: Location, Content-Type, SDP, redirect        | a server that quotes its URL and token   |
| a table given as text, a text given as a table     | validation                               |
| HTTP_PROXY: user info                              | away; refused; one that quotes it        |
| the command line                                   | a command, option and argument too many  |

Searched are the log at debug level, status and page and metrics and health over HTTP and by the
commands, what check, faces detect and sessions print, what systemd is told, and the journal.
"""

import base64
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from relayd.media.srt import shows_secret
from tests.support import stage
from tests.support.stage import (
    LIVE,
    PERSON,
    PORTRAIT,
    Emulator,
    RunningRelay,
    free_port,
    relayd,
    wait_for,
)

MARKER = re.compile(r"(?i)SECRET\d\d")
ENCODED = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")
LANDMARKS = "1,2:3,4:5,6:7,8"

StartRelay = Callable[..., RunningRelay]


def found_in(texts: dict[str, str]) -> list[str]:
    """Name each place where a marker is to be read, with its neighbourhood; encoded ones, too."""
    return [
        f"{place}: …{text[max(0, hit.start() - 60) : hit.end() + 20]}…"
        for place, whole in texts.items()
        for text in (whole, unquote(whole), *map(decoded, ENCODED.findall(whole)))
        for hit in MARKER.finditer(text)
    ]


def decoded(text: str) -> str:
    return base64.b64decode(text[: len(text) // 4 * 4]).decode("latin-1")


def test_the_search_finds_what_is_encoded_as_well() -> None:
    basic = base64.b64encode(b"me:SECRET42").decode()
    for said in ("SECRET42", "secret42", "%53ECRET42", f"{{'authorization': 'Basic {basic}'}}"):
        assert found_in({"here": said})


class Parrot(BaseHTTPRequestHandler):
    """A service that refuses everything and quotes all that it was sent, in its own way."""

    way = "json"

    def _answer(self) -> None:
        asked = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path.endswith("/getToken"):
            self._send(200, json.dumps({"code": 1000, "token": "SECRET50-bought", "expire": 99}))
            return
        heard = f"{self.path} {asked} {dict(self.headers)}"
        filler = "x" * (65 - len("<html>"))
        self._send(
            *{
                "json": (200, json.dumps({"code": 1003, "msg": f"Parameter error: {heard}"})),
                "html": (502, f"<html>{filler}{self._credential()} {heard}</html>"),
                "escaped": (200, json.dumps({"code": 1, "msg": heard.replace("/", "\\/")})),
                "refused": (401, json.dumps({"code": 1101, "msg": self._credential()})),
            }[self.way]
        )

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the library looks for them

    def _credential(self) -> str:
        return str(self.headers.get("x-api-key") or self.headers.get("authorization"))

    def _send(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "text/html; token=SECRET51; SECRET52")
        self.send_header("content-length", str(len(body.encode())))
        self.send_header("location", "https://SECRET53@elsewhere/SECRET54?x=SECRET55")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def running_parrot(way: str) -> Iterator[str]:
    """Serve a parrot that quotes in this way; gives its host and port."""
    handler = type("Parrot", (Parrot,), {"way": way})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def parrot(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_parrot(getattr(request, "param", "json")) as address:
        yield address


class Manager:
    """A service manager's end of sd_notify, which keeps what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._told = ""

    def told(self) -> str:
        while True:
            try:
                self._told += self._socket.recv(4096).decode() + "\n"
            except BlockingIOError:
                return self._told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def start_loud(
    start_relay: StartRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StartRelay:
    """Start relays that log all they have to say."""
    program = tmp_path / "relayd-loud"
    program.write_text(f'#!/bin/sh\nexec {stage.RELAYD} "$@" --log-level debug\n')
    program.chmod(0o755)
    monkeypatch.setattr(stage, "RELAYD", program)
    return start_relay


def told_by(relay: RunningRelay, manager: Manager, folder: Path) -> dict[str, str]:
    """Return all that a running relay says of itself, by where it says it."""
    ask = {"XDG_RUNTIME_DIR": str(folder)}
    texts = {f"GET {path}": relay.get(path).text for path in ("/", "/api/status", "/healthz")}
    texts["GET /metrics"] = relay.get("/metrics").text
    for arguments in (["status"], ["status", "--json"]):
        done = relayd(*arguments, **ask)
        texts[" ".join(arguments)] = done.stdout + done.stderr
    texts["log"] = relay.events()
    texts["systemd"] = manager.told()
    return texts


def journal_of(folder: Path) -> dict[str, str]:
    files = [file for file in (folder / "state").rglob("*") if file.is_file()]
    return {f"journal {file.name}": file.read_text("utf-8", "replace") for file in files}


@pytest.mark.relay
@pytest.mark.timeout(300)  # five outputs, and a dozen commands; 140 s where others run, too
def test_a_live_relay_shows_no_secret_of_its_configuration(
    start_loud: StartRelay, emulator: Emulator, manager: Manager, tmp_path: Path
) -> None:
    face = emulator.upload(PORTRAIT)
    port = free_port()
    (tmp_path / "relay.toml").write_text(f"""
[source]
url = "{PERSON}"
options = {{ headers = "Cookie: id=SECRET01", password = "SECRET02" }}
[face]
image = "{face}?sig=SECRET03"
[akool]
base_url = "{emulator.url}/"
[rtc]
kind = "webrtc"
publish_url = "{emulator.url}/rtc/{{channel_id}}/{{front_user_id}}/whip?key=SECRET06"
play_url = "{emulator.url}/rtc/{{channel_id}}/{{algorithm_user_id}}/whep?SECRET07"
[[output]]
kind = "stream"
url = "{tmp_path}/out.mkv"
[[output]]
kind = "stream"
url = "rtmp://127.0.0.1:{port}/live2/SECRET08"
[[output]]
kind = "stream"
url = "rtmp://127.0.0.1:{port}/live2/SECRET09"
[[output]]
kind = "stream"
url = "srt://127.0.0.1:{port}?passphrase=SECRET10-word&streamid=SECRET11&connect_timeout=300"
[[output]]
kind = "stream"
url = "rtsp://SECRET12:SECRET13@127.0.0.1:{port}/SECRET14/SECRET15?pwd=SECRET16"
[control]
socket = "{tmp_path}/relayd/studio.sock"
[state]
directory = "{tmp_path}/state"
""")
    relay = start_loud(AKOOL_API_KEY="SECRET17", NOTIFY_SOCKET=str(manager.path))
    relay.wait_state("live")

    def states() -> dict[str, str]:
        return dict(relay.status()["outputs"])

    wait_for("the outputs' fate", lambda: sum(how != "ok" for how in states().values()) == 4, LIVE)
    assert f"rtmp://127.0.0.1:{port}/live2/… #2" in states(), (
        "two that look the same are told apart"
    )
    texts = told_by(relay, manager, tmp_path)
    answer = relay.post("/api/face", image=f"{face}?sig=SECRET18", landmarks=LANDMARKS)
    texts["POST /api/face"] = answer.text
    bad = "http://SECRET19@127.0.0.1:9/SECRET20/x.png?t=SECRET21"
    texts["POST /api/face, refused"] = relay.post("/api/face", image=bad).text
    done = relayd("face", "set", bad, XDG_RUNTIME_DIR=str(tmp_path))
    texts["face set"] = done.stdout + done.stderr
    assert done.returncode != 0

    config = relay.config.read_text()
    relay.config.write_text(config.replace(f"{face}?", "ftp://SECRET22@host/x.png?"))
    relay.process.send_signal(signal.SIGHUP)
    wait_for("a refused reload", lambda: "reload.refused" in relay.events(), LIVE)
    relay.config.write_text(config.replace(f"{face}?sig=SECRET03", "http://SECRET23@127.0.0.1:9/x"))
    relay.process.send_signal(signal.SIGHUP)
    wait_for("another one", lambda: relay.events().count("reload.refused") > 1, LIVE)
    relay.config.write_text(config)
    texts |= told_by(relay, manager, tmp_path) | journal_of(tmp_path)
    for arguments in (["sessions", "list"], ["sessions", "list", "--json"], ["check"]):
        done = relayd(*arguments, "-c", relay.config, AKOOL_API_KEY="SECRET17")
        texts[" ".join(arguments)] = done.stdout + done.stderr
    assert relay.stop() == 0
    texts |= {"log": relay.events(), "systemd": manager.told()} | journal_of(tmp_path)
    assert len(texts["log"].splitlines()) > 10
    assert "STATUS=" in texts["systemd"]
    assert not found_in(texts)
    assert (tmp_path / "out.mkv").stat().st_mode & 0o077 == 0


def hostile_config(folder: Path, service: str, *, credentials: str) -> Path:
    file = folder / "hostile.toml"
    file.write_text(f"""
[source]
url = "rtsp://SECRET01:SECRET02@127.0.0.1:9/SECRET03?usr=SECRET04&pwd=SECRET05"
options = {{ user = "SECRET06" }}
[face]
image = "http://SECRET07:SECRET08@{service}/SECRET09/face.png?sig=SECRET10"
[akool]
base_url = "http://SECRET11:SECRET12@{service}"
{credentials}
[rtc]
kind = "webrtc"
publish_url = "http://SECRET14:SECRET15@{service}/SECRET16/{{channel_id}}/whip?key=SECRET17"
play_url = "http://SECRET18@{service}/{{channel_id}}/SECRET19?SECRET20"
[[output]]
kind = "stream"
url = "{folder}/out.mkv"
[[output]]
kind = "stream"
url = "rtmps://127.0.0.1:9/live2/SECRET21"
[[output]]
kind = "stream"
url = "SECRET22:SECRET23@127.0.0.1/nowhere/out.mkv"
[control]
socket = "{folder}/control.sock"
[state]
directory = "{folder}/state"
""")
    return file


@pytest.mark.parametrize(
    "credentials", ['api_key = "SECRET13-key"', 'client_id = "me"\nclient_secret = "SECRET13"']
)
def test_commands_show_no_secret_though_the_service_quotes_all_it_was_sent(
    tmp_path: Path, credentials: str
) -> None:
    with ExitStack() as parrots, ThreadPoolExecutor() as pool:  # most of the time a command waits
        runs = {}
        for way in ("json", "html", "escaped", "refused"):
            parrot = parrots.enter_context(running_parrot(way))
            (tmp_path / way).mkdir()
            file = hostile_config(tmp_path / way, parrot, credentials=credentials)
            face = f"http://SECRET30@{parrot}/SECRET31.png?SECRET32"
            for command in (
                ["check", "-c", file],
                ["check", "-c", file, "--json"],
                ["faces", "detect", face, "-c", file],
                ["sessions", "close", "abc", "--yes", "-c", file],
                ["sessions", "list", "-c", file],
            ):
                runs[way, *command] = pool.submit(relayd, *command)
        texts = {key: run.result().stdout + run.result().stderr for key, run in runs.items()}
    for way in ("json", "html", "escaped", "refused"):
        folder = tmp_path / way
        assert "failed" in texts[way, "check", "-c", folder / "hostile.toml"]
        assert not found_in(journal_of(folder))
    assert not found_in({" ".join(map(str, key)): text for key, text in texts.items()})


@pytest.mark.relay
@pytest.mark.timeout(180)  # two relays, 15 s on an idle machine
@pytest.mark.parametrize(
    ("parrot", "login"),
    [("json", "SECRET01:SECRET02@"), ("html", "me@mail.com:SECRET01@SECRET02#1/%?:&=@")],
    indirect=["parrot"],
)
def test_a_relay_that_is_refused_shows_no_secret(
    start_loud: StartRelay, parrot: str, login: str, manager: Manager, tmp_path: Path
) -> None:
    """Also of a password as it is, not percent-encoded."""
    file = hostile_config(tmp_path, parrot, credentials='api_key = "SECRET13-key"')
    text = file.read_text().replace("control.sock", "relayd/studio.sock")
    text = text.replace("[akool]", f'landmarks = "{LANDMARKS}"\n[akool]')
    text = text.replace("SECRET01:SECRET02@", login)
    (tmp_path / "relay.toml").write_text(text)
    relay = start_loud(NOTIFY_SOCKET=str(manager.path))
    wait_for("the source's refusal", lambda: "source.down" in relay.events(), LIVE)
    first = told_by(relay, manager, tmp_path)
    config = text.replace(re.search(r'url = "rtsp.*"', text)[0], f'url = "{PERSON}"')  # type: ignore[index]
    assert relay.stop() == 0
    relay.config.write_text(config)
    relay = start_loud(NOTIFY_SOCKET=str(manager.path))
    relay.wait_state("backoff", "blocked")
    second = told_by(relay, manager, tmp_path)
    assert relay.stop() == 0
    later = {"log": relay.events(), "systemd": manager.told()} | journal_of(tmp_path)
    assert not found_in(first)
    assert not found_in(second)
    assert not found_in(later)


WRONG = """
source = "rtsp://SECRET01:SECRET02@cam/SECRET03"
[video]
fps = "rtsp://SECRET04@cam"
[face]
image = "ftp://SECRET05:SECRET06@host/SECRET07/x.png?SECRET08"
[akool]
api_key = ["SECRET09"]
client_secret = 12345
base_url = "SECRET10:SECRET11@host"
[rtc]
publish_url = "http://SECRET12@host/SECRET13/{room}?SECRET14"
play_url = "ftp://SECRET15@host/{channel_id}?SECRET16"
[control]
http = "SECRET17:SECRET18@host:80/x"
[[output]]
kind = "stream"
url = ["rtmp://host/live2/SECRET19"]
[[output]]
url = "rtmp://host/live2/SECRET20"
[[output]]
kind = "stream"
uri = "rtmp://host/live2/SECRET21"
"""
OPTIONS = '[source]\nurl = ""\noptions = "SECRET22"\n[akool]\napi_key = { a = "SECRET23" }\n'


@pytest.mark.parametrize("text", [WRONG, OPTIONS, '[akool]\napi_key = "SECRET24\n', "[a\nSECRET25"])
def test_validation_messages_show_no_secret(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    for command in ("run", "check"):
        done = relayd(command, "-c", file)
        assert done.returncode == 78
        assert "Traceback" not in done.stderr
        assert not found_in({command: done.stdout + done.stderr})


@pytest.mark.parametrize(
    "given",
    [
        "akool.api_key=SECRET01",
        "akool.client_secret=SECRET01",
        'akool={client_secret="SECRET01"}',
        "akool.api_key SECRET01",
        "SECRET01",
        "akool.api_key=[[[SECRET01",
    ],
)
def test_set_refuses_a_secret_and_says_where_it_belongs(tmp_path: Path, given: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("")
    done = relayd("run", "-c", file, "--set", given)
    assert done.returncode == 78
    assert "SECRET01" not in done.stdout + done.stderr
    if "=" in given:
        name = "akool.client_secret" if "client_secret" in given else "akool.api_key"
        assert f"--set {name}: a command line can be read by every user" in done.stderr
        assert "systemd credential" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"RELAYD_SOURCE__URL": "SECRET01:SECRET02@cam/SECRET00", "RELAYD_VIDEO__FPS": "x"},
        {"RELAYD_OUTPUT": '[{"kind": "stream", "url": ["rtmp://h/l/SECRET03"]}]'},
        {"RELAYD_OUTPUT": '[{"kind": "stream", "url": "rtmp://h/l/SECRET04"'},
        {"RELAYD_SOURCE__OPTIONS": '{"headers": "SECRET05", SECRET06'},
        {"RELAYD_AKOOL": '{"api_key": {"x": "SECRET07"}}'},
        {"RELAYD_AKOOL__API_KEYS": "SECRET08", "RELAYD_API_KEY": "SECRET09"},
        {"AKOOL_API_KEY": "SECRET10 with a blank"},
        {"RELAYD_FACE__IMAGE": "SECRET11:SECRET12@host/x.png"},
    ],
)
def test_wrong_environment_variables_show_no_secret(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f'[face]\nimage = "http://127.0.0.1:9/x.png"\n[state]\ndirectory="{tmp_path}"')
    for command in (["check", "-c", file], ["faces", "detect", "http://h/x.png", "-c", file]):
        done = relayd(*command, **environment)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert not found_in({str(command): done.stdout + done.stderr})


def test_systemd_credentials_are_not_shown(parrot: str, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "akool-api-key").write_text("SECRET01-key")
    file = hostile_config(tmp_path, parrot, credentials="")
    done = relayd("check", "-c", file, CREDENTIALS_DIRECTORY=str(folder))
    assert not found_in({"check": done.stdout + done.stderr})
    (folder / "akool-api-key").write_bytes(b"SECRET02\xff")
    done = relayd("check", "-c", file, CREDENTIALS_DIRECTORY=str(folder))
    assert "not UTF-8" in done.stdout
    assert not found_in({"check": done.stdout + done.stderr})


@pytest.mark.parametrize(
    "proxy",
    [
        "http://SECRET01:SECRET02@127.0.0.1:9",
        "http://SECRET01:SECRET02@{parrot}",
        "https://SECRET01:SECRET02@{parrot}",
        "SECRET01:SECRET02@127.0.0.1:9",
        "socks5://SECRET01:SECRET02@127.0.0.1:9",
        "ftp://SECRET01:SECRET02@h",
        "http://SECRET01:SECRET02@[::1",
        "http://SECRET01:SECRET02@h:99999",
        "http:/SECRET01:SECRET02@h:1",
    ],
)
def test_a_proxy_s_password_is_not_shown(parrot: str, tmp_path: Path, proxy: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f"""
[face]
image = "http://face.example.invalid/x.png"
[akool]
base_url = "http://service.example.invalid"
api_key = "SECRET03-key"
[[output]]
kind = "stream"
url = "{tmp_path}/out.mkv"
[state]
directory = "{tmp_path}/state"
""")
    environment = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy.format(parrot=parrot))
    texts = {}
    for command in (["check"], ["faces", "detect", "http://h/x.png"]):
        done = relayd(*command, "-c", file, **environment)
        assert done.returncode, done.stdout
        texts[" ".join(command)] = done.stdout + done.stderr
    assert not found_in(texts)


@pytest.mark.parametrize(
    "arguments",
    [
        ["rtsp://SECRET01:SECRET02@h/x"],
        ["status", "studio", "rtsp://SECRET01:SECRET02@h/x"],
        ["demo", "--port", "rtsp://SECRET01:SECRET02@h/x"],
        ["run", "--sources=rtsp://SECRET01:SECRET02@h/x"],
        ["run", "-c", "rtsp://SECRET01:SECRET02@h/x"],
        ["face", "set", "rtsp://SECRET01:SECRET02@h/x", "--socket", "/nonexistent"],
        ["k9Xv83SECRET01bQ72"],
        ["check", "k9Xv83SECRET01bQ72"],
        ["status", "k9Xv83SECRET01bQ72"],
        ["run", "--log-level", "k9Xv83SECRET01bQ72"],
    ],
)
def test_a_wrong_command_line_is_refused_without_its_secrets(arguments: list[str]) -> None:
    done = relayd(*arguments)
    assert done.returncode
    assert done.stderr
    assert not found_in({"stdout": done.stdout, "stderr": done.stderr})


@pytest.mark.parametrize("name", ["api_key", "client_secret"])
@pytest.mark.parametrize(
    "secret",
    ["SECRET01\nSECRET02", "SECRET01\u00fc", "SECRET01\udcff", " SECRET01 ", "SECRET01\x01"],
)
def test_a_key_that_no_header_can_hold_is_not_shown(
    parrot: str, tmp_path: Path, name: str, secret: str
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f'[akool]\nbase_url = "http://{parrot}"\nclient_id = "me"\n')
    variable = f"RELAYD_AKOOL__{name.upper()}"
    done = relayd("faces", "detect", "http://h/x.png", "-c", file, **{variable: secret})
    assert done.returncode
    assert "unforeseen" not in done.stderr
    assert not found_in({"stdout": done.stdout, "stderr": done.stderr})


def test_a_source_s_passphrase_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    file = hostile_config(tmp_path, "127.0.0.1:9", credentials='api_key = "SECRET13-key"')
    text = re.sub(
        r'url = "rtsp.*"', 'url = "srt://127.0.0.1:9?passphrase=SECRET01-word"', file.read_text()
    )
    file.write_text(text)
    assert shows_secret("srt://127.0.0.1:9?passphrase=SECRET01-word")
    assert not shows_secret("srt://127.0.0.1:9?latency=20000&pbkeylen=16&token=x")
    given = "face.image=http://SECRET02@127.0.0.1:9/x.png"
    done = relayd("check", "-c", file, "--set", given)
    assert "warning  command line: --set face.image: every user" in done.stdout
    assert not found_in({"check": done.stdout + done.stderr})
