import socket
from pathlib import Path

import pytest

from relayd.control.api import status_json
from relayd.errors import UsageError
from relayd.relay.status import DemandState, RelayState, RelayStatus, Spread
from relayd.remote import find_socket, in_words


def test_the_only_relay_that_lives_is_found_and_a_dead_ones_socket_is_not(tmp_path: Path):
    folder = tmp_path / "relayd"
    folder.mkdir()
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(folder / "dead.sock"))
    with pytest.raises(UsageError, match="no relay runs"):
        find_socket(None, environment)
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as second:
        living.bind(str(folder / "studio.sock"))
        living.listen()
        assert find_socket(None, environment) == folder / "studio.sock"
        with pytest.raises(UsageError, match=r"no relay named dead runs \(running: studio\)"):
            find_socket("dead", environment)
        second.bind(str(folder / "kitchen.sock"))
        second.listen()
        with pytest.raises(UsageError, match="several relays run"):
            find_socket(None, environment)
        assert find_socket("kitchen", environment) == folder / "kitchen.sock"


def test_status_tells_who_looks_at_each_camera_and_where_on_demand_stands():
    told = in_words(
        status_json(
            RelayStatus(
                name="studio",
                state=RelayState.STANDBY,
                reason="nobody looks at the camera",
                since=1.0,
                uptime=2.0,
                source="/dev/video9",
                source_alive=False,
                session_id=None,
                sessions_open=0,
                fps=20.0,
                delay=Spread(),
                own_delay=Spread(),
                longest_gap=0.05,
                readers={"/dev/video0": 2, "/dev/video1": None},
                on_demand=DemandState.IDLE,
            )
        )
    )
    assert ("on demand", "idle") in told
    assert ("source", "/dev/video9 (let go of)") in told
    assert ("readers /dev/video0", "2") in told
    assert ("readers /dev/video1", "unknown") in told
