"""The stand-in of Agora's library carries Agora's wrapper, and says what a hub has it say."""

import contextlib
import json
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agora import library

# Every script begins so: it may not download, shows crashes, and notes what observers are told.
PRELUDE = """
import faulthandler, json, os, queue, threading, time, urllib.request
faulthandler.enable()

def no_download(*arguments, **options):
    os._exit(99)

urllib.request.urlretrieve = no_download
from agora.rtc.agora_service import AgoraService
from agora.rtc.agora_base import *
from agora.rtc.rtc_connection_observer import IRTCConnectionObserver
from agora.rtc.local_user_observer import IRTCLocalUserObserver
from agora.rtc.video_frame_observer import IVideoFrameObserver

received = queue.SimpleQueue()

def copied(argument):  # the wrapper hands out views that are good within the callback alone
    return argument.get() if hasattr(argument, "get") else argument

def noting(base):
    def method(name):
        return lambda self, *arguments: received.put(
            (name, [copied(argument) for argument in arguments], threading.get_native_id()))
    names = [name for name in dir(base) if name.startswith("on_")]
    return type("Noting", (base,), {name: method(name) for name in names})()

def wait_for(name):
    while True:
        event = received.get(timeout=10)
        if event[0] == name:
            return event[1]

def start(video=1):
    service = AgoraService()
    service.initialize(AgoraServiceConfig(
        appid="app", enable_video=video, audio_scenario=AudioScenarioType.AUDIO_SCENARIO_DEFAULT))
    return service

def connect(service):
    connection = service.create_rtc_connection(
        RTCConnConfig(client_role_type=ClientRoleType.CLIENT_ROLE_BROADCASTER),
        RtcConnectionPublishConfig(
            audio_scenario=AudioScenarioType.AUDIO_SCENARIO_DEFAULT, is_publish_video=True,
            video_publish_type=VideoPublishType.VIDEO_PUBLISH_TYPE_YUV))
    connection.set_video_encoder_configuration(VideoEncoderConfiguration(
        dimensions=VideoDimensions(width=64, height=48), frame_rate=20, bitrate=900))
    kept.append(noting(IRTCConnectionObserver))
    connection.register_observer(kept[-1])
    connection.register_local_user_observer(noting(IRTCLocalUserObserver))
    connection.register_video_frame_observer(noting(IVideoFrameObserver))
    user = connection.get_local_user()
    kept.extend([connection.con_observer_handle, user.user_observer_inner])
    kept.append(user.video_frame_observer)
    connection.publish_video()
    user.subscribe_video("3", None)
    assert connection.connect("to ken", "room/1", "7") == 0
    return connection

def push(connection, pixels, stride, height, **crops):
    return connection.push_video_frame(ExternalVideoFrame(
        type=1, format=1, buffer=pixels, stride=stride, height=height, **crops))

def finish(**result):
    print(json.dumps(result), flush=True)
    os._exit(0)

kept = []
"""


class Hub(socketserver.ThreadingUnixStreamServer):
    """A hub of one member: whatever comes from it is sent back as user 3's."""

    def __init__(self, path: str, greeting: str = "inited 0 0\n") -> None:
        """Answer a new service with `greeting`."""
        super().__init__(path, Member)
        self.path, self.greeting = path, greeting
        self.rest_at_frame = 0.0
        """Seconds that it does not read for when a frame comes, once."""
        self.lines: list[str] = []
        self.members: list[threading.Thread] = []

    def received(self) -> list[str]:
        """Every line in the order it came, calls without thread and process; at the end of all."""
        for member in self.members:
            member.join(10)
        return self.lines


class Member(socketserver.StreamRequestHandler):
    server: Hub

    def handle(self) -> None:
        self.server.members.append(threading.current_thread())
        with contextlib.suppress(ConnectionError):  # the process may end before it is answered
            self.converse()

    def converse(self) -> None:
        while line := self.rfile.readline().decode().strip():
            words = line.split(" ")
            if words[0] == "frame":
                time.sleep(self.server.rest_at_frame)
                self.server.rest_at_frame = 0.0
            payload = self.rfile.read(int(words[-1]))
            is_call = words[0] == "call"
            self.server.lines.append(f"call {words[1]} {words[3]}" if is_call else line)
            if news := answer(self.server, words, payload):
                self.wfile.write(news)


def answer(hub: Hub, words: list[str], payload: bytes) -> bytes:
    match words:
        case ["service", *_]:
            return hub.greeting.encode()
        case ["join", _, _, uid, *_]:
            news = f"connecting 0 0\nconnected 1 {uid} 0\njoined 3 0\nvideo_subscribed 3 0\n"
            return (news + "error 17 not%20you 0\nstats 800 700 30 1 2 0\n").encode()
        case ["frame", width, height, rotation, _, length]:
            chroma = (int(width) + 1) // 2
            strides = f"{width} {chroma} {chroma}"
            return f"frame 3 {width} {height} {strides} {rotation} 5 {length}\n".encode() + payload
        case ["leave", _]:
            return b"disconnected 5 0\n"
        case ["renew", *_]:
            return b"will_expire new 0\n"
    return b""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with tempfile.TemporaryDirectory() as folder, Hub(f"{folder}/hub") as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


def run(site: Path, script: str, hub_path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script over the wrapper and the stand-in, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        env={**os.environ, "PYTHONPATH": str(site), "XDG_AGORA_HUB": hub_path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def result_of(site: Path, script: str, hub_path: str = "") -> dict[str, object]:
    done = run(site, script, hub_path)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_everything_the_wrapper_looks_up_is_exported_and_nothing_else(agora_site: Path) -> None:
    path = agora_site / "agora" / "agora_sdk" / "libagora_rtc_sdk.so"
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True
    )
    exported = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert exported == library.bound_names(agora_site / "agora")
    assert len(exported) == 136


STRUCTURES = {
    "service_config": "AgoraServiceConfigInner",
    "rtc_conn_config": "RTCConnConfigInner",
    "rtc_conn_info": "RTCConnInfoInner",
    "rtc_stats": "RTCStatsInner",
    "rtc_conn_observer": "RTCConnectionObserverInner",
    "local_user_observer": "RTCLocalUserObserverInner",
    "video_frame_observer": "VideoFrameObserverInner",
    "video_encoder_config": "VideoEncoderConfigurationInner",
    "video_track_info": "VideoTrackInfoInner",
    "video_frame": "VideoFrameInner",
    "external_video_frame": "ExternalVideoFrameInner",
    "audio_frame": "AudioFrameInner",
    "audio_frame_observer": "AudioFrameObserverInner",
}


def test_arguments_are_laid_out_as_the_wrapper_has_them(agora_site: Path, tmp_path: Path) -> None:
    script = f"""
import ctypes
import agora.rtc.rtc_connection as wrapper
import agora.rtc.local_user as local_user

def layout(name):
    kind = getattr(wrapper, name, None) or getattr(local_user, name)
    fields = {{field: getattr(kind, field).offset for field, _ in kind._fields_}}
    return [ctypes.sizeof(kind), fields]

finish(**{{name: layout(kind) for name, kind in {STRUCTURES}.items()}})
"""
    lines = ['#include "abi.h"', "#include <stddef.h>"]
    for name, layout in result_of(agora_site, script).items():
        assert isinstance(layout, list)
        size, fields = layout
        lines.append(f'_Static_assert(sizeof(struct {name}) == {size}, "{name}");')
        lines += [
            f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");'
            for field, offset in fields.items()
        ]
    if shutil.which("gcc") is None:
        pytest.skip("NO LAYOUT COMPARED: gcc is missing, apt-get install gcc")
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines))
    command = ["gcc", "-std=gnu11", "-fsyntax-only", f"-I{library.NATIVE}", str(source)]
    compiled = subprocess.run(command, check=False, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    assert len(lines) > 150


@pytest.mark.parametrize("path", ["", "/nowhere/hub"])
def test_without_a_hub_the_service_is_not_initialised(agora_site: Path, path: str) -> None:
    script = """
from importlib.metadata import version
service = start()
finish(version=version("agora-python-server-sdk"), inited=service.inited)
"""
    assert result_of(agora_site, script, path) == {"version": "2.4.10", "inited": False}


def test_a_frame_is_sent_and_received_unchanged(agora_site: Path, hub: Hub) -> None:
    script = """
service = start()
connection = connect(service)
info = wait_for("on_connected")[1]
error = wait_for("on_error")[1:]
stats = wait_for("on_transport_stats")[1]
pixels = bytearray(os.urandom(640 * 480 * 3 // 2))
sent = bytes(pixels)
returned = push(connection, pixels, 640, 480)
name, (channel, uid, frame), thread = received.get(timeout=10)
connection.disconnect()
reason = wait_for("on_disconnected")[2]
again = connection.connect("", "room/1", "7")
wait_for("on_connected")
twice = connection.connect("", "room/1", "7")
connection.release()
service.release()
finish(
    same=frame.y_buffer + frame.u_buffer + frame.v_buffer == sent, returned=returned,
    user=[info.channel_id, info.local_user_id, info.state, channel, uid],
    size=[frame.width, frame.height, frame.y_stride, frame.u_stride, frame.render_time_ms],
    error=error, rates=[stats.tx_video_k_bit_rate, stats.rx_video_k_bit_rate, stats.gateway_rtt],
    foreign=thread != threading.get_native_id(), reason=reason, again=again, twice=twice)
"""
    assert result_of(agora_site, script, hub.path) == {
        "same": True,
        "returned": 0,
        "user": ["room/1", "7", 3, "room/1", "3"],
        "size": [640, 480, 640, 320, 5],
        "error": [17, "not you"],
        "rates": [800, 700, 30],
        "foreign": True,
        "reason": 5,
        "again": 0,
        "twice": -8,
    }
    messages = [line for line in hub.received() if not line.startswith(("call", "service"))]
    assert messages[:5] == [
        "join app room%2F1 7 to%20ken 1 0",
        "publish video 0",
        "subscribe 3 0",
        "encoder 64 48 20 900000 -1 2 0",
        "frame 640 480 0 0 460800",
    ]
    assert messages[5:8] == ["unpublish audio 0", "unpublish video 0", "leave 0"]
    calls = [line for line in hub.received() if line.startswith("call")]
    assert calls[:2] == ["call service_create 0", "call service_initialize 0"]
    assert calls[-1] == "call service_release 0"


def test_a_crop_takes_its_part_of_each_plane(agora_site: Path, hub: Hub) -> None:
    script = """
service = start()
connection = connect(service)
wait_for("on_transport_stats")
y = [row * 8 + column for row in range(6) for column in range(8)]
u = [100 + row * 4 + column for row in range(3) for column in range(4)]
pixels = bytearray(y + u + [value + 50 for value in u])
push(connection, pixels, 8, 6, crop_left=2, crop_right=2, crop_top=2, crop_bottom=0)
frame = wait_for("on_frame")[2]
odd = push(connection, pixels, 8, 6, crop_left=4, crop_right=4)
finish(y=list(frame.y_buffer), u=list(frame.u_buffer), v=list(frame.v_buffer), odd=odd)
"""
    assert result_of(agora_site, script, hub.path) == {
        "y": [row * 8 + column for row in range(2, 6) for column in range(2, 6)],
        "u": [105, 106, 109, 110],
        "v": [155, 156, 159, 160],
        "odd": -2,
    }


def test_nothing_is_seen_without_video(agora_site: Path, hub: Hub) -> None:
    script = """
service = start(video=0)
connection = connect(service)
wait_for("on_transport_stats")
finish(returned=push(connection, bytearray(96), 8, 8))
"""
    assert result_of(agora_site, script, hub.path) == {"returned": -4}
    assert not [line for line in hub.received() if line.startswith("frame")]


def test_a_call_from_a_callback_is_reported_as_such(agora_site: Path, hub: Hub) -> None:
    script = """
service = start()
connection = connect(service)
wait_for("on_transport_stats")
done = threading.Event()

def renew_again(connection, token):
    if not done.is_set():
        connection.renew_token("third")
        done.set()

kept[0].on_token_privilege_will_expire = renew_again
connection.renew_token("second")
finish(done=done.wait(10))
"""
    assert result_of(agora_site, script, hub.path) == {"done": True}
    calls = [line for line in hub.received() if "renew_token" in line]
    assert calls[:2] == ["call rtc_conn_renew_token 0", "call rtc_conn_renew_token 1"]


def test_a_hub_has_calls_fail_and_hang_without_others_noticing(agora_site: Path, hub: Hub) -> None:
    hub.greeting = "fail local_user_publish_video -5 0\nhang rtc_conn_renew_token 0\ninited 0 0\n"
    script = """
service = start()
connection = connect(service)
threading.Thread(target=connection.renew_token, args=("new",), daemon=True).start()
wait_for("on_connected")
finish(published=connection.publish_video(), user=wait_for("on_user_joined")[1])
"""
    assert result_of(agora_site, script, hub.path) == {"published": -5, "user": "3"}
    assert not [line for line in hub.received() if line.startswith(("publish", "renew"))]
    assert "call rtc_conn_renew_token 0" in hub.received()


def test_a_fault_set_later_is_confirmed_once_calls_show_it(agora_site: Path, hub: Hub) -> None:
    early, late = "fail rtc_conn_renew_token -5 0", "fail local_user_publish_video -5 0"
    hub.greeting = f"{early}\ninited 0 0\n{early}\n{late}\n"
    script = """
service = start()
connection = connect(service)
while connection.publish_video() == 0:
    time.sleep(0.01)
finish(done=True)
"""
    assert result_of(agora_site, script, hub.path) == {"done": True}
    assert hub.received().count("applied 0") in (1, 2)  # its end may overtake the last one


@pytest.mark.parametrize(
    "greeting", ["inited -7 0\n", "fail service_initialize -7 0\ninited 0 0\n"]
)
def test_a_hub_may_refuse_the_service(agora_site: Path, hub: Hub, greeting: str) -> None:
    hub.greeting = greeting
    assert result_of(agora_site, "finish(inited=start().inited)", hub.path) == {"inited": False}


@pytest.mark.parametrize(
    ("crash", "status"), [("abort", -signal.SIGABRT), ("segv", -signal.SIGSEGV)]
)
def test_a_hub_ends_the_process(agora_site: Path, hub: Hub, crash: str, status: int) -> None:
    hub.greeting = f"inited 0 0\n{crash} 0\n"
    # Without faulthandler: it looks at threads that run on, and may crash in another way.
    script = "faulthandler.disable()\nservice = start()\ntime.sleep(10)"
    assert run(agora_site, script, hub.path).returncode == status


def test_a_hub_that_does_not_read_blocks_nothing_and_later_gets_whole_frames(
    agora_site: Path, hub: Hub
) -> None:
    hub.rest_at_frame = 1.0
    script = """
service = start()
connection = connect(service)
wait_for("on_transport_stats")
begun = time.monotonic()
for shade in range(10):
    push(connection, bytearray([shade]) * (640 * 480 * 3 // 2), 640, 480)
took = time.monotonic() - begun

def shades():
    frame = wait_for("on_frame")[2]
    return sorted(set(frame.y_buffer + frame.u_buffer + frame.v_buffer))

first = shades()
push(connection, bytearray([99]) * (640 * 480 * 3 // 2), 640, 480)
finish(quick=took < 0.9, first=first, then=shades())
"""
    result = result_of(agora_site, script, hub.path)
    assert result == {"quick": True, "first": [0], "then": [99]}
