"""The .deb's life: as a whole in a container, and on a machine with a real camera.

The container installs it beside its real dependency, v4l2loopback-dkms with dkms, which finds no
kernel headers there and so compiles nothing; every file that is written there can be seen
afterwards. The machine has what only a kernel of its own can show: names and rights of the cameras,
the picture on them, that a killed relay's camera can be taken again and its session is closed. An
emulated dpkg takes a minute, so there the package is unpacked, its Python libraries are mounted,
and its postinst is run; udev is unpacked, too. The module that modprobe loads is the machine's own,
of Debian's source. In both each test goes on where the one before ended.
"""

import itertools
import json
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relayd.media.frames import Geometry
from relayd.output.standby import StandbyRenderer
from relayd.relay.status import RelayState
from relayd.sound.blocks import RATE
from tests.agora.library import build_site
from tests.support.interpreter import ROOT
from tests.support.stage import Emulator, wait_for
from tests.vm import cache, packages
from tests.vm.container import KEY, Container
from tests.vm.guest import WHOLE, Failed, Guest, Machine, Note, Process
from tests.vm.relays import service_of

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

NEXT = "0.1.0+1"
DEPENDENCIES = ("dkms", "v4l2loopback-dkms")
OF_DKMS = ("dpkg-dev", "gcc", "make", "patch", "kmod")  # its dependencies: the host has them
INSTALL = "DEBIAN_FRONTEND=noninteractive dpkg --no-triggers --force-unsafe-io -i"
SLOW = 120.0  # s; emulation, on a busy machine
HOME = "/usr/lib/relayd"
AGORA = "agora-python-server-sdk 2.4.10"
AGORA_PLACE = f"{HOME}/lib/python3.*/site-packages/agora"
MEDIA = ROOT / "tests/media"
SIZE = Geometry(640, 480)


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What apt would fetch beside the package."""
    cache.install(OF_DKMS)
    return download(tmp_path_factory.mktemp("dependencies"), *DEPENDENCIES)


@pytest.fixture(scope="module")
def udev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of udev, and those of the library of its very version."""
    folder = tmp_path_factory.mktemp("udev")
    for package in download(folder, "udev", "libudev1"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    return folder / "root"


def download(folder: Path, *packages: str) -> list[Path]:
    fetch = ["apt-get", "-qq", "download", *packages]
    if subprocess.run(fetch, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        done = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NO PACKAGES, SO THE .deb IS NOT TESTED: {done.stderr}")
    return sorted(folder.glob("*.deb"))


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files."""
    return packages.unpack(package, tmp_path_factory.mktemp("unpacked") / "root")


@pytest.fixture(scope="module")
def upgrade(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version of the package: the same, but for its number."""
    return packages.renumbered(package, NEXT, tmp_path_factory.mktemp("upgrade"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the machine may put files for us."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def booted(
    boot_machine: Callable[[Machine], AbstractContextManager[Guest]],
    shared: Path,
    unpacked: Path,
    udev: Path,
) -> Iterator[tuple[Guest, Process]]:
    """A machine with systemd and no camera, and what puts udev and the package in place there."""
    with boot_machine(Machine(systemd=True, options=None, memory=3072, shared=shared)) as guest:
        yield guest, guest.start(SETUP.format(udev=udev, package=unpacked, home=HOME))


SETUP = """\
set -e
cd {udev}; for folder in *; do cp -a $folder/. /$folder/; done
systemctl daemon-reload; systemctl start systemd-udevd
cd {package}; tar -c --exclude usr/lib/relayd/lib etc usr | tar -xC /
mkdir {home}/lib; mount --bind {package}{home}/lib {home}/lib
DEBIAN/postinst configure
"""


@pytest.fixture(scope="module", autouse=True)
def meanwhile(request: pytest.FixtureRequest) -> None:
    """Let the machine, where there is one, do that while the container's tests run."""
    with suppress(pytest.skip.Exception):
        request.getfixturevalue("booted")


@pytest.fixture(scope="module")
def machine(booted: tuple[Guest, Process]) -> Guest:
    """The machine as the package and the test before left it."""
    guest, setup = booted
    assert setup.wait() == 0, setup.text
    return guest


@pytest.fixture(scope="module")
def config(service: Emulator, face: str) -> str:
    """A relay whose session waits in the service's queue."""
    service.fault("queue", queue_seconds=600)
    return f"""
[source]
url = "testsrc2=size=640x480:rate=5"
format = "lavfi"
[face]
image = "{face}"
[akool]
base_url = "{service.url}"
[rtc]
kind = "webrtc"
[[output]]
kind = "stream"
url = "/tmp/out.mkv"
"""


def shown(machine: Guest, shared: Path) -> np.ndarray:
    """Return a frame that a reader of the camera gets, as I420."""
    file = shared / "frame"
    machine.run(
        f"v4l2-ctl -d /dev/video40 --stream-mmap --stream-skip 2 --stream-count 1"
        f" --stream-to {file}"
    )
    return np.frombuffer(file.read_bytes(), np.uint8).reshape(SIZE.shape)


def told(machine: Guest) -> dict[str, Any]:
    """Return what the relay says of itself."""
    socket = "/run/relayd/studio/control.sock"
    return dict(json.loads(machine.run(f"curl -s --unix-socket {socket} http://relay/api/status")))


def assert_standby_is_shown(machine: Guest, shared: Path) -> None:
    """Hold what a reader sees against the picture that the relay ought to show, drawn here."""
    wait_for("standby", lambda: told(machine)["state"] == "standby", SLOW, 0.5)
    status = told(machine)
    state = RelayState(status["state"])
    drawn = StandbyRenderer(SIZE).draw(*state.on_picture(status["reason"])).i420
    difference = np.abs(shown(machine, shared).astype(int) - drawn.astype(int)).mean()
    assert difference < 0.5, f"{difference:.2f} of 255 off, on average"


@pytest.fixture(scope="module")
def clean_box(dependencies: list[Path]) -> Iterator[tuple[Container, set[str]]]:
    """A system with what the package depends on, and the files that this took."""
    box = Container()
    try:
        box.run(f"{INSTALL} {' '.join(map(str, dependencies))}")
        assert box.run("dkms status").endswith(": added"), "nothing was compiled"
        box.run("systemctl start dbus")  # else the first relay does: it asks for logind
        yield box, box.written()
    finally:
        box.stop()


@pytest.fixture
def box(clean_box: tuple[Container, set[str]], package: Path) -> Container:
    """The system with the package installed, else as the test before left it."""
    box, _ = clean_box
    state = box.start("dpkg-query -Wf '${db:Status-Status} ${Version}' relayd").stdout
    if state != f"installed {packages.version_of(package)}":
        box.run(f"{INSTALL} {package}")
    return box


@pytest.fixture(scope="module")
def native_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip that Agora's library comes in, with the stand-in in it."""
    found = sorted(MEDIA.glob("agora_python_server_sdk-*.tar.gz"))
    if not found or not shutil.which("gcc"):
        pytest.skip(
            "AGORA'S LIBRARY IS NOT TESTED IN THE PACKAGE: tests/setup.sh fetches its parts"
        )
    site = build_site(found[-1], MEDIA / "agora-site")
    file = tmp_path_factory.mktemp("agora") / "sdk.zip"
    with zipfile.ZipFile(file, "w") as zipped:
        for library in (site / "agora/agora_sdk").glob("*.so"):
            zipped.write(library, f"agora_sdk/{library.name}")
    return file


def test_the_whole_package_installs_as_it_was_made(box: Container) -> None:
    box.run("dpkg --verify relayd")
    assert "/usr/share/man/man1/relayd.1.gz" in box.run("dpkg -L relayd").split()


def test_agoras_library_can_be_added_to_it_for_the_service(
    box: Container, native_sdk: Path, config: str
) -> None:
    box.run(f"rm -rf {AGORA_PLACE}*")
    old = f"{HOME}/lib/python3.1/site-packages/agora"  # of a Python that was there before
    said = box.run(f"mkdir -p {old} && /var/lib/dpkg/info/relayd.postinst configure 0")
    assert "once more: relayd agora-install" in said
    box.run(f"[ ! -e {HOME}/lib/python3.1 ]")
    wrapper = f"PIP_FIND_LINKS='{MEDIA} {os.environ.get('PIP_FIND_LINKS', '')}'"
    said = box.run(f"umask 077; {wrapper} relayd agora-install --from {native_sdk}")
    assert said.endswith("ready: agora-python-server-sdk 2.4.10")
    box.write("/etc/relayd/studio.toml", config)
    as_service = f"runuser -u relayd -- env AKOOL_API_KEY={KEY}"
    here = "--set rtc.kind=agora --set control.socket=/tmp/check.sock"  # nothing is left of it
    check = f"relayd check -c /etc/relayd/studio.toml {here}"
    assert f"ok       rtc: {AGORA} loads" in box.run(f"{as_service} {check}", None)


def test_an_upgrade_restarts_the_relay_and_a_purge_leaves_nothing_but_its_state(
    box: Container,
    clean_box: tuple[Container, set[str]],
    upgrade: Path,
    config: str,
    service: Emulator,
) -> None:
    _, clean = clean_box
    box.run("systemctl stop 'relayd@*'; rm -rf /var/lib/relayd/studio")  # of a first try
    box.write("/etc/credstore/akool-api-key", KEY, 0o600)
    box.write("/etc/relayd/studio.toml", config)
    box.run("systemctl enable --now relayd@studio")
    wait_for("a session", service.sessions, 30)
    before, old = box.run("systemctl show -p MainPID --value relayd@studio"), set(service.open())
    box.run("echo '# mine' >>/etc/modprobe.d/relayd.conf")
    # None after a first try that has removed the package.
    had_agora = box.start(f"[ -e {AGORA_PLACE} ]").returncode == 0
    said = box.run(f"{INSTALL} {upgrade}")
    assert "agora-install" not in said
    assert NEXT in box.run("dpkg-query -W relayd")
    assert box.run("systemctl show -p MainPID --value relayd@studio") not in (before, "0")
    assert box.run("systemctl is-active relayd@studio") == "active"
    assert box.run("tail -1 /etc/modprobe.d/relayd.conf") == "# mine"
    assert not old & set(service.open()), "the old relay's session was closed"
    if had_agora:
        assert box.run("relayd agora-install").startswith(f"{AGORA} is installed")
    wait_for("a session", service.sessions, 30)
    box.run("dpkg -r relayd")
    assert service.sessions() == []
    box.run(f"! pgrep -u relayd && [ ! -e {HOME} ]")
    box.run("ls /etc/relayd/studio.toml /etc/modprobe.d/relayd.conf")
    box.run("dpkg -P relayd")
    left = {path for path in box.written() - clean if not path.startswith(STAYS)}
    assert left == set()
    assert len(box.run("cat /var/lib/relayd/studio/history.jsonl").splitlines()) == 2
    assert box.run("stat -c %U /var/lib/relayd/studio") == "relayd"


STAYS = (
    "var/lib/relayd",
    "var/lib/dpkg/",
    "var/lib/systemd/",
    "var/log/",
    "var/cache/",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "etc/subuid",
    "etc/subgid",
    "root/.cache/",
)
"""The state; and where dpkg, systemd, pip and the making of a user leave their own traces."""


def test_it_is_set_up_on_a_machine_and_starts_nothing(machine: Guest) -> None:
    assert "(video)" in machine.run("id relayd")
    assert machine.run("stat -c '%a %U:%G' /etc/relayd").strip() == "750 root:relayd"
    assert machine.run("systemctl list-units --plain --no-legend 'relayd@*'") == ""


def test_a_relay_that_is_started_before_there_is_a_video_driver_may_open_a_camera(
    machine: Guest,
) -> None:
    """It waits for the cameras, which the next test makes."""
    machine.run("systemctl stop relayd@early; rmmod videodev")
    machine.write("/run/systemd/system/relayd@early.service.d/test.conf", EARLY)
    machine.run("systemctl daemon-reload && systemctl start relayd@early")
    assert "video4linux" in machine.run("cat /proc/devices")


EARLY = """\
[Service]
Type=exec
WatchdogSec=0
ExecStart=
ExecStart=/bin/sh -c "until 3<>/dev/relayd/1; do sleep 0.1; done"
ExecStopPost=
"""


def test_two_cameras_with_names_that_stay_are_there_as_at_boot(machine: Guest) -> None:
    machine.run("systemctl restart systemd-modules-load && udevadm settle")
    assert machine.run("cat /sys/class/video4linux/video4[01]/name") == "relayd\nrelayd 2\n"
    assert machine.run("readlink -f /dev/relayd/0 /dev/relayd/1") == "/dev/video40\n/dev/video41\n"
    assert machine.run("stat -Lc '%a %U:%G' /dev/relayd/0").strip() == "660 root:video"
    assert machine.run("cat /sys/module/v4l2loopback/parameters/exclusive_caps")[:3] == "Y,Y"
    early = "systemctl show -p ActiveState,Result relayd@early"
    opened = "ActiveState=inactive\nResult=success\n"
    wait_for("its opening", lambda: set(machine.run(early).split()) == set(opened.split()), SLOW)


def test_start_returns_with_the_standby_picture_on_the_camera(
    machine: Guest, shared: Path, note: Note
) -> None:
    machine.write("/etc/credstore/akool-api-key", KEY)
    machine.write("/etc/relayd/studio.toml", STANDBY)
    machine.write("/run/systemd/system/relayd@studio.service.d/test.conf", QUICK)
    machine.run("systemctl stop relayd@studio; systemctl daemon-reload")
    machine.run("systemctl start relayd@studio", within=SLOW)
    assert machine.run("systemctl is-active relayd@studio") == "active\n"
    assert_standby_is_shown(machine, shared)
    assert machine.run(RESTARTS) == "0\n"
    size = int(machine.run("cat /sys/fs/cgroup/system.slice/system-relayd.slice/*/memory.current"))
    note("memory of a relay in standby, whole unit", f"{size / 2**20:.0f} MiB")


STANDBY = """
[source]
url = "/nonexistent.mp4"
[face]
image = "http://127.0.0.1:9/face.png"
[akool]
base_url = "http://127.0.0.1:9"
[rtc]
kind = "webrtc"
[on_demand]
mode = "never"
[[output]]
kind = "camera"
device = "/dev/relayd/0"
"""
QUICK = """\
[Service]
RestartSec=100ms
ExecStopPost=
"""
"""There is no session to close, and a Python takes long to start here."""


RESTARTS = "systemctl show -p NRestarts --value relayd@studio"


def follow_journal(machine: Guest) -> Process:
    """Follow what the unit logs from now on."""
    now = machine.run("date +%s.%N").strip()
    return machine.start(f"journalctl -fu relayd@studio -o cat --no-tail --since @{now}")


def test_after_sigkill_the_next_start_finds_the_camera(
    machine: Guest, shared: Path, note: Note
) -> None:
    journal = follow_journal(machine)
    before = int(machine.run(RESTARTS))
    began = time.monotonic()
    machine.run("systemctl kill -s KILL --kill-who main relayd@studio")
    journal.wait_for("^Started relayd@studio", SLOW)
    note("SIGKILL to READY again, emulated", f"{time.monotonic() - began:.0f} s")
    journal.stop()
    assert int(machine.run(RESTARTS)) == before + 1
    assert_standby_is_shown(machine, shared)


GRACES = itertools.count(7)
"""s; each try of a reload brings another one."""


def test_a_reload_reaches_the_relay_that_holds_the_camera(machine: Guest) -> None:
    other = f"[on_demand]\ngrace = {next(GRACES)}"
    machine.write("/etc/relayd/studio.toml", STANDBY.replace("[on_demand]", other))
    journal = follow_journal(machine)
    machine.run("systemctl reload relayd@studio")
    journal.wait_for(r'"applied": \["on_demand.grace"\]', SLOW)
    journal.stop()


def test_a_wrong_file_is_not_tried_again(machine: Guest) -> None:
    machine.write("/etc/relayd/wrong.toml", f"{STANDBY}[nonsense]\n")
    machine.run("systemctl start relayd@wrong", SLOW, status=1)
    facts = "systemctl show -p ActiveState,ExecMainStatus,NRestarts relayd@wrong"
    found = set(machine.run(facts).split())
    assert found == {"ActiveState=failed", "ExecMainStatus=78", "NRestarts=0"}


@pytest.mark.skipif(not WHOLE, reason="takes minutes, and the container shows it in seconds")
def test_a_stuck_relay_with_a_camera_is_restarted(machine: Guest, shared: Path, note: Note) -> None:
    journal = follow_journal(machine)
    began = time.monotonic()
    machine.run("systemctl kill -s STOP --kill-who main relayd@studio")
    journal.wait_for("Watchdog timeout", SLOW)
    note("SIGSTOP to the watchdog, emulated", f"{time.monotonic() - began:.0f} s")
    journal.wait_for("^Started relayd@studio", SLOW)
    note("SIGSTOP to READY again, emulated", f"{time.monotonic() - began:.0f} s")
    journal.stop()
    assert_standby_is_shown(machine, shared)


def test_the_session_of_a_killed_relay_with_a_camera_is_closed(
    machine: Guest, config: str, service: Emulator, note: Note
) -> None:
    toml = config.replace(f'base_url = "{service.url}"', f'base_url = "{service_of(service)}"')
    camera = '"camera"\ndevice = "/dev/relayd/0"\n[on_demand]\nmode = "never"'
    toml = toml.replace('"stream"\nurl = "/tmp/out.mkv"', camera)
    machine.write("/etc/relayd/studio.toml", toml)
    machine.write("/run/systemd/system/relayd@studio.service.d/test.conf", NO_RESTART)
    before = set(service.open())
    machine.run("systemctl daemon-reload && systemctl restart relayd@studio", SLOW)
    wait_for("a session", lambda: set(service.open()) - before, SLOW)
    began = time.monotonic()
    machine.run("systemctl kill -s KILL --kill-who main relayd@studio")
    wait_for("its close", lambda: not service.sessions(), SLOW)
    note("SIGKILL to the session closed, emulated", f"{time.monotonic() - began:.0f} s")


NO_RESTART = "[Service]\nRestart=no\n"
"""Else the next start might have closed it."""


def test_the_service_writes_a_sound_card_whose_driver_came_after_its_start(
    machine: Guest, shared: Path, note: Note
) -> None:
    machine.run(
        "systemctl stop 'relayd@*'; ! grep -q '^snd_aloop ' /proc/modules || rmmod snd-aloop"
    )
    machine.write("/etc/credstore/akool-api-key", KEY)
    machine.write("/etc/relayd/voice.toml", VOICE)
    machine.write("/run/systemd/system/relayd@voice.service.d/test.conf", QUICK)
    machine.run("systemctl daemon-reload && systemctl start relayd@voice", within=SLOW)
    journal = machine.start("journalctl -fu relayd@voice -o cat --no-tail")
    journal.wait_for("no sound card relayd", SLOW)
    machine.run("modprobe snd-aloop && udevadm settle")
    assert machine.run("stat -c '%a %U:%G' /dev/snd/pcmC9D0p").strip() == "660 root:audio"
    about = machine.run("udevadm info --query=property /sys/class/sound/card9")
    assert "SOUND_DESCRIPTION=relayd microphone" in about.splitlines()
    journal.wait_for("microphone.opened", SLOW)
    writer = machine.run(f"sed -n 's/^owner_pid *: //p' {CARD}/pcm0p/sub0/status").strip()
    assert machine.run(f"stat -c %U /proc/{writer}").strip() == "relayd"
    began = time.monotonic()
    file = shared / "heard"
    reader = machine.start(f"arecord -q -D hw:CARD=relayd,DEV=1 -t raw {FORMAT} {file}")
    wait_for("the voice", lambda: len(loud(file)) > RATE, SLOW)
    note(
        "arecord's start to 1 s of the service's voice, emulated",
        f"{time.monotonic() - began:.1f} s",
    )
    listening = r'"device": "alsa:\S+", "count": {}, "event": "readers.changed"'
    journal.wait_for(listening.format(1), SLOW)
    reader.stop()
    journal.wait_for(f"(?s){listening.format(1)}.*{listening.format(0)}", SLOW)
    journal.stop()
    assert "session." not in journal.text, "the voice alone takes no session"
    pitch = np.argmax(np.abs(np.fft.rfft(loud(file)[-RATE:])))  # of one second, so in hertz
    assert abs(pitch - 1000) < 30  # it may be stretched by one in a hundred
    machine.run("systemctl stop relayd@voice")
    assert machine.run(f"cat {CARD}/pcm0p/sub0/status") == "closed\n"


def loud(file: Path) -> np.ndarray:
    """Return what was recorded, from its first sound on."""
    if not file.exists():
        return np.zeros(0, np.int16)
    recorded = file.read_bytes()
    return np.trim_zeros(np.frombuffer(recorded[: len(recorded) // 2 * 2], np.int16), "f")


VOICE = """
[source]
url = "testsrc2=size=160x120:rate=5[out0];sine=frequency=1000:sample_rate=48000[out1]"
format = "lavfi"
[face]
image = "http://127.0.0.1:9/face.png"
[akool]
base_url = "http://127.0.0.1:9"
[rtc]
kind = "webrtc"
[[output]]
kind = "camera"
device = "/dev/relayd/1"
[[output]]
kind = "microphone"
device = "alsa:hw:CARD=relayd,DEV=0"
"""
"""Who reads only its microphone hears its source, without a session."""
CARD = "/proc/asound/relayd"
FORMAT = "-f S16_LE -r 48000 -c 1"


def test_nothing_went_wrong_in_the_kernel(machine: Guest) -> None:
    said = machine.run("dmesg --level=emerg,alert,crit,err || true")
    if "BUG" in said or "Oops" in said:
        raise Failed(said)
