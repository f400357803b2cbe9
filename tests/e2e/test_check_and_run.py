"""`relayd check` and `relayd run` find the same fault of a set-up, in the same words."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from relayd.commands.check import PARTS, check_part
from relayd.commands.finding import Finding
from relayd.commands.run import run_daemon
from relayd.config.loading import load
from relayd.config.requirements import require_runnable
from relayd.config.settings import Settings
from relayd.errors import ConfigError, RelaydError
from relayd.http.client import HttpClient
from tests.support.stage import PERSON, PORTRAIT, Emulator, rtc_keys

WITHIN = 25.0  # s that a relay may take here to say what is wrong


@dataclass(frozen=True)
class SetUp:
    """What is wrong, the part it belongs to, and words that both must say of it."""

    sets: tuple[str, ...]
    part: str
    says: str
    environment: dict[str, str] = field(default_factory=dict)
    fault: dict[str, Any] = field(default_factory=dict)
    """Of the emulator."""


NOWHERE = "http://127.0.0.1:1"
AT_LOAD = {
    "a name without a known ending": SetUp(
        ("output.0.url={tmp}/x.avi",),
        "config",
        "output.0.url = '{tmp}/x.avi': no container is known",
    ),
    "a scheme nothing can push to": SetUp(
        ("output.0.url=gopher://h/x",), "config", "cannot push to gopher://; use one of rtsp://"
    ),
    "a push port no machine has": SetUp(
        ("output.0.url=rtmp://h:99999/a/b",), "config", "output.0.url = "
    ),
    "a service port no machine has": SetUp(
        ("akool.base_url=http://h:99999",), "config", "the port must be 1 to 65535"
    ),
    "a size no encoder takes": SetUp(("video.width=641",), "config", "must be a multiple of 2"),
    "a face that is a file": SetUp(("face.image=me.png",), "config", "public http(s) URL"),
    "no face": SetUp(('face.image=""',), "config", 'face.image = "": missing'),
    "no key": SetUp(('akool.api_key=""',), "config", "akool.api_key: missing"),
    "no output": SetUp(("output=[]",), "config", "output = []: missing"),
    "a control address without a port": SetUp(
        ("control.http=localhost",), "config", "give host and port"
    ),
    "a key in capitals": SetUp(("Video.fps=5",), "config", "[Video]: names are case-sensitive"),
    "a push URL without a host": SetUp(
        ("output.0.url=rtmp:///live/x",), "config", "it names no host"
    ),
    "a push URL without a port": SetUp(("output.0.url=udp://h",), "config", "it names no port"),
    "a service URL with a query": SetUp(
        ("akool.base_url=http://h/?q=1",), "config", "it can have no ? and no #"
    ),
    "true for a number": SetUp(("video.fps=true",), "config", "video.fps = true: must be a number"),
    "an unknown field in a URL": SetUp(
        ("rtc.play_url=http://h/{{room}}",), "config", "is no field of a session"
    ),
}
AT_START = {
    "a library that is not there": SetUp(("rtc.kind=agora",), "rtc", "rtc.kind"),
    "a standby picture that is not there": SetUp(
        ("privacy.standby_image={tmp}/none.png",), "standby", "none.png"
    ),
    "a standby picture that is none": SetUp(
        (f"privacy.standby_image={PERSON}",), "standby", "not a picture that can be read"
    ),
    "a control port in use": SetUp(
        ("control.http=127.0.0.1:{used}",), "control", "Address already in use"
    ),
    "a control address of another machine": SetUp(
        ("control.http=192.0.2.1:80", "control.insecure=true"),
        "control",
        "Cannot assign requested address",
    ),
    "a control host nobody knows": SetUp(
        ("control.http=no.such.host.invalid:80", "control.insecure=true"),
        "control",
        "[control] http = ",
    ),
    "a control socket that is a folder": SetUp(
        ("control.socket={tmp}",), "control", "there is a file of another kind"
    ),
    "a control socket with a long name": SetUp(
        ("control.socket={tmp}/" + "x" * 120,), "control", "AF_UNIX path too long"
    ),
    "a proxy that makes no sense": SetUp(
        ("akool.base_url=http://service.invalid",),
        "service",
        "ALL_PROXY (environment): a proxy cannot be a ftp:// URL",
        {"ALL_PROXY": "ftp://h"},
    ),
    "a CA file that is not there": SetUp(
        ("akool.base_url=https://service.invalid",),
        "service",
        "SSL_CERT_FILE=/nonexistent (environment): No such file or directory",
        {"SSL_CERT_FILE": "/nonexistent"},
    ),
    "a state directory of nobody": SetUp(
        ("state.directory=~no_such_user/x",),
        "journal",
        "state.directory: '~no_such_user/x' is in",
    ),
}
WHILE_RUNNING = {
    "a source that is not there": SetUp(
        ("source.url=/nonexistent/clip.mp4",), "source", "there is no file /nonexistent/clip.mp4"
    ),
    "a source that is no video": SetUp(("source.url=" + __file__,), "source", "test_check_and_run"),
    "a source nobody serves": SetUp(
        ("source.url=rtsp://127.0.0.1:1/x",), "source", "connection refused: nothing listens there"
    ),
    "a microphone on no card": SetUp(
        ("output.1.kind=microphone", "output.1.device=alsa:hw:CARD=none,DEV=0"),
        "microphone",
        "no sound card none",
    ),
    "a recording in no folder": SetUp(
        ("output.0.url={tmp}/none/out.mkv",), "stream", "No such file or directory (create its"
    ),
    "a recording below a file": SetUp(
        ("output.0.url={tmp}/relay.toml/out.mkv",), "stream", "Not a directory"
    ),
    "a recording where nothing can be made": SetUp(
        ("output.0.url=/proc/out.mkv",), "stream", "/proc/out.mkv: "
    ),
    "a receiver that does not listen": SetUp(
        ("output.0.url=tcp://127.0.0.1:1",), "stream", "tcp://127.0.0.1:1: Connection refused"
    ),
    "a camera that is not there": SetUp(
        ('output=[{{kind="camera",device="/dev/video97"}}]', "on_demand.mode=never"),
        "camera",
        "/dev/video97: no such file",
    ),
    "a state directory nobody can make": SetUp(
        ("state.directory=/proc/none",), "journal", "[state] directory '/proc/none' cannot be used"
    ),
    "a service that does not listen": SetUp(
        (f"akool.base_url={NOWHERE}",), "service", "Connection refused"
    ),
    "a proxy that does not listen": SetUp(
        ("akool.base_url=http://service.invalid",),
        "service",
        "through the proxy HTTP_PROXY=http://127.0.0.1:1: Connection refused",
        {"HTTP_PROXY": "http://127.0.0.1:1"},
    ),
    "a key the service refuses": SetUp(
        (), "service", "1101", fault={"name": "refuse", "code": 1101}
    ),
    "a picture of nobody": SetUp(
        ("face.image={landscape}",), "face", "no face was found in [face] image"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("RELAYD_", "SSL_CERT", "AKOOL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def prepare(
    emulator: Emulator, tmp_path: Path, used_port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[SetUp], tuple[Callable[[], Settings], str]]]:
    """Return what loads the settings of a set-up, and the words that are to be said."""

    def prepare(set_up: SetUp) -> tuple[Callable[[], Settings], str]:
        if set_up.fault:
            emulator.fault(**set_up.fault)
        names: dict[str, object] = {"tmp": tmp_path, "used": used_port}
        if any("{landscape}" in text for text in set_up.sets):
            picture = tmp_path / "landscape.png"
            Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(picture)
            names["landscape"] = emulator.upload(picture)
        config = tmp_path / "relay.toml"
        config.write_text(
            f'[source]\nurl = "{PERSON}"\n[face]\nimage = "{emulator.upload(PORTRAIT)}"\n'
            f'[akool]\nbase_url = "{emulator.url}"\napi_key = "a-test-key"\n'
            f'[rtc]\n{rtc_keys(emulator.url)}\n[state]\ndirectory = "{tmp_path}/state"\n'
            f'[[output]]\nkind = "stream"\nurl = "{tmp_path}/out.mkv"\n'
        )
        sets = [text.format(**names) for text in set_up.sets]

        for name, value in set_up.environment.items():
            patch.setenv(name, value)

        def read() -> Settings:
            settings = load(config, sets)
            require_runnable(settings)
            return settings

        return read, set_up.says.format(**names)

    with monkeypatch.context() as patch:
        yield prepare


def failed_words(findings: list[Finding], part: str) -> str:
    failures = [found for found in findings if found.is_failure]
    assert [found.part for found in failures] == [part] * len(failures)
    assert failures, findings
    words = (f"{found.why} ({found.hint})" if found.hint else found.why for found in failures)
    return "\n".join(words)


def part_of(part: str) -> str:
    """Name the check that finds faults of a part: outputs go by their kind."""
    if part == "microphone":
        return "sound"
    return "output" if part in {"camera", "stream"} else part


@pytest.mark.parametrize("name", AT_LOAD)
def test_what_is_wrong_with_the_settings_ends_check_and_run_alike(
    name: str, prepare: Callable[..., Any]
) -> None:
    read, says = prepare(AT_LOAD[name])
    with pytest.raises(ConfigError) as caught:  # both commands begin with this
        read()
    assert says in str(caught.value)


@pytest.mark.parametrize("name", AT_START)
async def test_what_keeps_a_relay_from_starting_is_found_by_check(
    name: str, prepare: Callable[..., Any]
) -> None:
    set_up = AT_START[name]
    read, says = prepare(set_up)
    with pytest.raises(RelaydError) as caught:
        await asyncio.wait_for(run_daemon(read(), "studio", read), WITHIN)
    assert says in str(caught.value)
    found = await check_part(part_of(set_up.part), read(), "studio")
    checked = failed_words(found, set_up.part)
    assert str(caught.value) == checked
    assert found[-1].exit_code == caught.value.exit_code


@contextlib.asynccontextmanager
async def running(settings: Settings, read: Callable[[], Settings]) -> AsyncIterator[None]:
    """Run a relay while the block runs."""
    relay = asyncio.create_task(run_daemon(settings, "studio", read))
    try:
        yield
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(relay, WITHIN)


@pytest.mark.parametrize("name", WHILE_RUNNING)
async def test_what_a_relay_waits_for_is_in_its_status_and_found_by_check(
    name: str, prepare: Callable[..., Any], tmp_path: Path
) -> None:
    set_up = WHILE_RUNNING[name]
    read, says = prepare(set_up)
    settings = read()
    found = await check_part(part_of(set_up.part), settings, "studio")
    assert says in failed_words(found, set_up.part)
    control = tmp_path / "status.sock"
    socket_there = settings.control.model_copy(update={"socket": str(control)})
    settings = settings.model_copy(update={"control": socket_there})
    told = ""
    async with running(settings, read), HttpClient(unix_socket=control) as http:
        async with asyncio.timeout(WITHIN):
            while says not in told:
                await asyncio.sleep(0.1)
                with contextlib.suppress(RelaydError):
                    status = (await http.request("GET", "http://relay/api/status")).json()
                    told = f"{status['reason']} {status['outputs']}"
    assert status["healthy"] is False


def test_every_part_of_check_has_a_wrong_set_up_here() -> None:
    tried = {part_of(one.part) for one in (*AT_START.values(), *WHILE_RUNNING.values())}
    assert tried | {"name"} == set(PARTS), "name: test_check has it"
    assert len(AT_LOAD) + len(AT_START) + len(WHILE_RUNNING) >= 30
