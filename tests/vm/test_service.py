"""The unit's life under a real systemd, in a container at the machine's own speed."""

import itertools
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

import pytest

from tests.support.stage import PORTRAIT, Emulator, rtc_keys
from tests.vm.container import KEY, Container

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

PERSON = "/usr/lib/relayd/lib/python3.11/site-packages/relayd/emulator/media/person.mp4"
LIVE = 60.0  # s to the first swapped picture; 2.5 s on an idle machine
WATCHDOG = 4.0  # s; the unit has 10
SOON = "RestartSec=100ms\n"  # in place of 3 s


@pytest.fixture(scope="module")
def box(package: Path) -> Iterator[Container]:
    """A system with the package's files, its user and its folders."""
    box = Container(package)
    box.run("systemd-sysusers relayd.conf && systemd-tmpfiles --create relayd.conf")
    make_sleepy(box)
    # Else a user's login, or a relay's lock on the sleep, would start them in some test.
    box.run("systemctl start dbus systemd-logind polkit")
    box.write("/etc/credstore/akool-api-key", KEY + "\n", 0o600)
    yield box
    box.stop()


def make_sleepy(box: Container) -> None:
    """Let logind believe that this machine can sleep; all but the sleep itself is real."""
    box.write("/run/power-state", "freeze mem\n")
    box.run("mount --bind /run/power-state /sys/power/state")
    nothing = "[Service]\nExecStart=\nExecStart=/bin/true\n"
    box.write("/run/systemd/system/systemd-suspend.service.d/test.conf", nothing)
    box.run("systemctl daemon-reload")


class Unit:
    """relayd@NAME in the box."""

    def __init__(self, box: Container, name: str, config: str) -> None:
        self.box, self.name, self.unit = box, name, f"relayd@{name}"
        self.configure(config)

    def configure(self, config: str) -> None:
        self.box.write(f"/etc/relayd/{self.name}.toml", config)

    def drop_in(self, text: str) -> None:
        self.box.write(f"/run/systemd/system/{self.unit}.service.d/test.conf", text)
        self.box.run("systemctl daemon-reload")

    def systemctl(self, verb: str, status: int | None = 0) -> str:
        return self.box.run(f"systemctl {verb} {self.unit}", status)

    def show(self, *names: str) -> list[str]:
        lines = self.box.run(f"systemctl show {self.unit} -p {','.join(names)}").splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return [values[name] for name in names]

    @property
    def status(self) -> str:
        return self.show("StatusText")[0]

    @property
    def pid(self) -> int:
        return int(self.show("MainPID")[0])

    def journal(self) -> str:
        return self.box.run(f"journalctl -u {self.unit} -o cat --no-pager")

    def signal(self, number: signal.Signals) -> None:
        self.box.run(f"kill -{number.name.removeprefix('SIG')} {self.pid}")

    def wait_for(self, what: str, done: Callable[[], object], within: float = LIVE) -> float:
        try:
            return self.box.wait_for(what, done, within)
        except AssertionError as fault:
            fault.add_note(self.systemctl("status", None) + "\n" + self.journal()[-4000:])
            raise

    def wait_live(self) -> None:
        self.wait_for("live", lambda: self.status.startswith("Live"))

    def journal_of_sessions(self) -> str:
        folder = f"/var/lib/relayd/{self.name}/sessions"
        return self.box.run(f"if [ -d {folder} ]; then ls {folder}; fi")


NAMES = (f"t{number}" for number in itertools.count(1))
"""Of units: each has one of its own, and so a journal, at a second try as well."""


@pytest.fixture
def make_unit(box: Container, service: Emulator) -> Iterator[Callable[[str], Unit]]:
    """Make a relay of the test's own; it is stopped after the test, its session closed."""
    made: list[Unit] = []
    service.reset()

    def make(config: str) -> Unit:
        unit = Unit(box, next(NAMES), config)
        made.append(unit)
        return unit

    yield make
    for unit in made:
        unit.systemctl("stop", None)
    left = service.sessions()
    service.reset()
    assert not left, f"sessions left open: {left}"


@pytest.fixture
def config(service: Emulator, face: str) -> str:
    """A relay that goes live; it records into the private /tmp of its unit."""
    return f"""
[source]
url = "{PERSON}"
[face]
image = "{face}"
[akool]
base_url = "{service.url}"
[rtc]
{rtc_keys(service.url)}
[[output]]
kind = "stream"
url = "/tmp/relayd-test.mkv"
"""


@pytest.fixture
def standby_config(config: str) -> str:
    """A relay that stays in standby and opens no session: its source is missing."""
    return config.replace(PERSON, "/nonexistent.mp4")


def test_start_returns_when_the_outputs_have_a_picture_and_not_before(
    make_unit: Callable[[str], Unit], standby_config: str
) -> None:
    unit = make_unit(standby_config)
    unit.systemctl("start")
    told = json.loads(unit.box.run(f"relayd status {unit.name} --json", 1))
    assert told["frames"]["standby"] >= 1
    assert unit.show("ActiveState", "SubState") == ["active", "running"]
    assert unit.status.startswith("Standing by: there is no file /nonexistent.mp4")


def test_a_live_relay_runs_as_its_own_user_with_the_key_from_the_credential_store(
    make_unit: Callable[[str], Unit], config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.systemctl("start")
    unit.wait_live()
    assert unit.status == "Live"
    assert len(service.sessions()) == 1
    status = unit.box.run(f"cat /proc/{unit.pid}/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["CapEff"] == facts["CapBnd"] == "0000000000000000"
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert unit.box.run(f"stat -c %U /proc/{unit.pid}") == "relayd"
    assert "akool-api-key" not in unit.box.run(f"tr '\\0' '\\n' </proc/{unit.pid}/environ")
    assert KEY not in unit.journal()


def test_stop_closes_the_session(
    make_unit: Callable[[str], Unit], config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.systemctl("start")
    unit.wait_live()
    unit.systemctl("stop")
    assert service.sessions() == []
    assert unit.journal_of_sessions() == ""
    assert unit.show("Result", "ActiveState") == ["success", "inactive"]


def test_after_sigkill_the_session_is_closed_before_anything_starts_again(
    make_unit: Callable[[str], Unit], config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.drop_in("[Service]\nRestart=no\n")  # else the next start might have closed it
    unit.systemctl("start")
    unit.wait_live()
    unit.signal(signal.SIGKILL)
    took = unit.wait_for("the end", lambda: unit.show("ActiveState") == ["failed"])
    assert took < 20
    assert unit.show("Result") == ["signal"]
    assert service.sessions() == []
    assert unit.journal_of_sessions() == ""
    unit.systemctl("reset-failed")


def test_a_killed_relay_comes_back_and_is_live_again(
    make_unit: Callable[[str], Unit], config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.drop_in("[Service]\n" + SOON)
    unit.systemctl("start")
    unit.wait_live()
    first = unit.pid
    unit.signal(signal.SIGKILL)
    unit.wait_for("restart", lambda: unit.pid not in (0, first))
    unit.wait_live()
    assert unit.show("NRestarts") == ["1"]
    assert len(service.sessions()) == 1


def test_a_stuck_relay_is_restarted_by_the_watchdog(
    make_unit: Callable[[str], Unit], config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.drop_in(f"[Service]\nWatchdogSec={WATCHDOG:g}s\n" + SOON)
    unit.systemctl("start")
    unit.wait_live()
    unit.signal(signal.SIGSTOP)
    took = unit.wait_for("restart", lambda: unit.show("NRestarts") == ["1"])
    assert took > WATCHDOG / 2
    assert "Watchdog timeout" in unit.journal()
    unit.wait_live()
    assert len(service.sessions()) == 1, "the stuck relay's session was closed"


def test_a_healthy_relay_is_left_alone_by_the_watchdog(
    make_unit: Callable[[str], Unit], standby_config: str
) -> None:
    unit = make_unit(standby_config)
    unit.drop_in("[Service]\nWatchdogSec=1s\n")
    unit.systemctl("start")
    time.sleep(2.5)  # more than twice what the watchdog allows
    assert unit.show("NRestarts", "ActiveState") == ["0", "active"]


def test_reload_takes_over_what_can_change_and_names_what_cannot(
    make_unit: Callable[[str], Unit], config: str, service: Emulator, face: str
) -> None:
    unit = make_unit(config)
    unit.systemctl("start")
    unit.wait_live()
    pid, (session,) = unit.pid, service.sessions()
    other = service.upload(PORTRAIT.with_name("portrait2.png"))
    assert other != face
    unit.configure(config.replace(face, other) + "[video]\nfps = 25\n")
    unit.systemctl("reload")
    unit.wait_for("its end", lambda: "restart needed" in unit.status)
    assert unit.status == "Live [restart needed for video.fps]"
    assert unit.pid == pid
    (changed,) = service.sessions()
    assert changed["_id"] == session["_id"]
    assert '"event": "session.face_changed"' in unit.journal()


def test_a_bad_file_is_refused_and_the_relay_goes_on(
    make_unit: Callable[[str], Unit], standby_config: str
) -> None:
    unit = make_unit(standby_config)
    unit.systemctl("start")
    pid = unit.pid
    unit.configure(standby_config + '[video]\nfit = "squeeze"\n')
    unit.systemctl("reload")
    unit.wait_for("its end", lambda: "reload refused" in unit.status)
    assert "video.fit = 'squeeze'" in unit.status
    assert "video.fit = 'squeeze'" in unit.journal()
    assert unit.show("MainPID", "ActiveState") == [str(pid), "active"]
    unit.configure(standby_config)
    unit.systemctl("reload")
    unit.wait_for("its end", lambda: "reload" not in unit.status)


@pytest.mark.parametrize(
    ("key", "code"), [("not a key", 77), ("", 78)], ids=["credentials", "configuration"]
)
def test_what_a_person_must_hint_is_not_tried_again(
    make_unit: Callable[[str], Unit], standby_config: str, key: str, code: int
) -> None:
    config = standby_config.replace("[akool]", f'[akool]\napi_key = "{key}"')
    unit = make_unit(config if key else config + "[nonsense]\n")
    unit.systemctl("start", 1)
    assert unit.show("ActiveState", "ExecMainStatus", "NRestarts") == ["failed", str(code), "0"]
    unit.systemctl("reset-failed")


def without_camera(standby_config: str) -> str:
    config = standby_config.replace('"stream"', '"camera"')
    return config.replace('url = "/tmp/relayd-test.mkv"', 'device = "/dev/video77"')


def test_a_missing_camera_is_waited_for_and_costs_no_start(
    make_unit: Callable[[str], Unit], standby_config: str
) -> None:
    unit = make_unit(without_camera(standby_config))
    unit.systemctl("start")  # READY
    assert unit.show("ActiveState", "NRestarts") == ["active", "0"]
    unit.wait_for("word of it", lambda: "/dev/video77: no such file" in unit.journal())


def test_a_camera_that_is_required_is_tried_again_and_given_up_in_the_end(
    make_unit: Callable[[str], Unit], standby_config: str
) -> None:
    unit = make_unit(without_camera(standby_config))
    command = "/usr/bin/relayd run -c /etc/relayd/%i.toml --require-outputs"
    unit.drop_in(f"[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=\nExecStart={command}\n{SOON}")
    unit.systemctl("start", 1)
    unit.wait_for("giving up", lambda: unit.show("ActiveState") == ["failed"])
    assert "Start request repeated too quickly" in unit.journal()
    assert unit.show("ExecMainStatus", "NRestarts") == ["69", "2"]
    assert unit.status.startswith("/dev/video77: no such file"), "systemctl status says why"
    unit.systemctl("reset-failed")


def test_a_service_that_does_not_answer_holds_no_stop_up_for_long(
    make_unit: Callable[[str], Unit], config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.systemctl("start")
    unit.wait_live()
    service.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        unit.systemctl("stop")
        took = time.monotonic() - began
    finally:
        service.process.send_signal(signal.SIGCONT)
    assert took < 45
    assert unit.show("Result") == ["success"], "systemd had to kill nothing"
    assert unit.journal_of_sessions().endswith(".json"), "the journal keeps what may be open"
    unit.systemctl("start")
    unit.wait_for("its orphan closed", lambda: "session.closed" in unit.journal())


def test_the_sandbox_holds(make_unit: Callable[[str], Unit], standby_config: str) -> None:
    unit = make_unit(standby_config)
    box = unit.box
    box.run("rm -f /dev/relayd-tun && mknod -m 666 /dev/relayd-tun c 10 200")
    box.write("/home/somebody/secret", "x")
    box.write("/usr/local/bin/probe", PROBE, 0o755)
    unit.drop_in("[Service]\nExecStartPre=/usr/local/bin/probe\n")
    unit.systemctl("start")
    found = dict(line.split("=", 1) for line in unit.journal().splitlines() if "=" in line[:12])
    assert found["usr"] == found["etc"] == "Read-only file system"
    assert found["home"] != "fine"
    assert found["state"] == "fine"
    assert found["tun"] == "Operation not permitted", "the device policy refuses it"
    assert found["socket"] == "Address family not supported by protocol"
    assert found["user"] == "Operation not permitted"


PROBE = """#!/usr/bin/python3
import os, socket
def attempt(name, action):
    try:
        action()
    except OSError as fault:
        print(f"{name}={fault.strerror}", flush=True)
    else:
        print(f"{name}=fine", flush=True)
attempt("usr", lambda: open("/usr/x", "w"))
attempt("etc", lambda: open("/etc/relayd/x", "w"))
attempt("home", lambda: open("/home/somebody/secret"))
attempt("state", lambda: open(os.environ["STATE_DIRECTORY"] + "/x", "w"))
attempt("tun", lambda: os.close(os.open("/dev/relayd-tun", os.O_RDWR)))
attempt("socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("user", lambda: os.chown(os.environ["STATE_DIRECTORY"] + "/x", 1, 1))
"""


def test_a_user_of_a_desktop_runs_one_too(
    box: Container, service: Emulator, standby_config: str
) -> None:
    box.run("id someone || useradd --create-home --groups video someone")  # there at a second try
    box.run("systemctl start user@$(id -u someone)")
    toml = standby_config.replace("/tmp/relayd-test.mkv", "/home/someone/out.mkv")
    box.write("/home/someone/.config/relayd/me.toml", toml)
    box.write("/home/someone/.config/relayd/environment", f"AKOOL_API_KEY={KEY}\n", 0o600)
    box.run("chown -R someone: /home/someone")
    as_user = "runuser -u someone -- env XDG_RUNTIME_DIR=/run/user/$(id -u someone)"
    started = box.start(f"{as_user} systemctl --user start relayd@me")
    log = "journalctl -n 30 -o cat --no-pager _UID=$(id -u someone)"
    assert started.returncode == 0, box.run(log)
    assert box.run(f"{as_user} relayd status me", 1).startswith("relay      me")
    box.run(f"{as_user} systemctl --user stop relayd@me")
    assert box.run(f"{as_user} systemctl --user is-active relayd@me", 3) == "inactive"
    box.run("systemctl stop user@$(id -u someone)")


def test_install_makes_a_service_of_a_relayd_that_is_no_package(
    package: Path, service: Emulator, standby_config: str
) -> None:
    box = Container(package)
    try:
        box.run(
            "mv /usr/lib/relayd /opt/relayd && sed -i 's|/usr/lib|/opt|' /opt/relayd/bin/relayd"
        )
        box.run(
            "find /usr/lib/systemd /usr/lib/*.d /etc -name '*relayd*' -delete; rm /usr/bin/relayd"
        )
        relayd = "/opt/relayd/bin/relayd"
        said = box.run(f"{relayd} install --yes")
        assert "ran       systemd-sysusers /etc/sysusers.d/relayd.conf" in said
        assert "failed" not in said
        box.write("/etc/credstore/akool-api-key", KEY, 0o600)
        box.write("/etc/relayd/studio.toml", standby_config.replace("/usr/lib", "/opt"))
        box.run("systemctl start relayd@studio")
        assert box.run(f"{relayd} status studio", 1).startswith("relay      studio")
        refused = box.run(f"{relayd} uninstall --yes", 69)
        assert "systemctl disable --now relayd@studio.service" in refused
        box.run("systemctl stop relayd@studio")
        box.run(f"{relayd} uninstall --yes")
        assert box.run("find /etc -name '*relayd*'") == "/etc/relayd"
        assert box.run("ls -A /etc/relayd") == "studio.toml"
    finally:
        box.stop()


def locks(box: Container) -> list[str]:
    """Who delays the sleep: name, user's name and mode of each lock of a relay."""
    lines = box.run("systemd-inhibit --list --no-legend --no-pager").splitlines()
    rows = [line.split() for line in lines if line.startswith("relayd ")]
    return [f"{row[2]} {row[-1]}" for row in rows]


class Journal:
    """What systemd's journal says from now on of a relay and of the machine's sleep."""

    def __init__(self, unit: Unit) -> None:
        self._box, self._name = unit.box, unit.unit
        told = self._box.run("journalctl -n 1 --show-cursor --no-pager")
        self._cursor = told.rpartition("-- cursor: ")[2]

    def steps(self, *words: str) -> list[str]:
        """Those of `words` that were told, in their order."""
        units = f"-u {self._name} -u systemd-suspend -u systemd-logind"
        since = f"--after-cursor {quote(self._cursor)}"
        told = self._box.run(f"journalctl {units} {since} -o cat --no-pager")
        return re.findall("|".join(map(re.escape, words)), told)

    def suspend(self) -> None:
        """Let the machine sleep, and wait until it has woken."""
        awake = len(self.steps(AWAKE)) + 1
        manager = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager"
        self._box.run(f"busctl call {manager} Suspend b false")
        self._box.wait_for("the wake", lambda: len(self.steps(AWAKE)) == awake, LIVE)


ASLEEP = "Starting systemd-suspend.service"
AWAKE = "Operation 'sleep' finished"


def test_in_the_sandbox_of_the_unit_a_real_logind_waits_until_all_is_closed(
    make_unit: Callable[[str], Unit], box: Container, standby_config: str
) -> None:
    unit = make_unit(standby_config)
    box.write("/usr/local/bin/sleeper", SLEEPER, 0o755)
    unit.drop_in(
        "[Service]\nType=simple\nWatchdogSec=0\nExecStart=\nExecStopPost=\n"
        "ExecStart=/usr/lib/relayd/bin/python /usr/local/bin/sleeper\n"
    )
    unit.systemctl("start")
    unit.wait_for("the lock", lambda: locks(box) == ["relayd delay"])
    journal = Journal(unit)

    def woke(times: int) -> Callable[[], bool]:
        return lambda: journal.steps("awake") == ["awake"] * times

    for sleeps in (1, 2):
        journal.suspend()
        unit.wait_for("the wake", woke(sleeps))
        unit.wait_for("the lock again", lambda: locks(box) == ["relayd delay"])
    steps = ["closing", "closed", ASLEEP, "awake"]
    assert journal.steps(*steps) == steps * 2
    unit.systemctl("stop")
    assert locks(box) == []


def test_a_live_relay_has_closed_its_session_when_the_machine_sleeps(
    make_unit: Callable[[str], Unit], box: Container, config: str, service: Emulator
) -> None:
    unit = make_unit(config)
    unit.systemctl("start")
    unit.wait_live()
    unit.wait_for("the lock", lambda: locks(box) == ["relayd delay"])
    (session,) = service.sessions()
    journal = Journal(unit)
    journal.suspend()
    unit.wait_for("a session of after the sleep", lambda: new_session(service, session["_id"]))
    unit.wait_live()
    steps = ["sleep.begins", "session.closed", ASLEEP, "sleep.ended"]
    assert journal.steps(*steps) == steps


def new_session(service: Emulator, old: str) -> bool:
    return [one["_id"] != old for one in service.sessions()] == [True]


SLEEPER = """#!/usr/lib/relayd/bin/python
import asyncio
from relayd.relay.sleep.watch import SleepWatch
async def close():
    print("closing", flush=True)
    await asyncio.sleep(0.5)
    print("closed", flush=True)
asyncio.run(SleepWatch(close, lambda: print("awake", flush=True)).run())
"""
