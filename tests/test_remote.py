import socket
from pathlib import Path

import pytest

from relayd.errors import UsageError
from relayd.remote import find_socket


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
