"""The microphone of a system service: snd-aloop with the shipped options, in a real kernel."""

import json

import pytest

from tests.support.interpreter import ROOT
from tests.vm.guest import Guest, Note
from tests.vm.relays import PYTHON

pytestmark = pytest.mark.vm


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("guest", ["0.15"], indirect=True)
def test_programs_hear_what_a_relay_writes_into_the_loopback_card(guest: Guest, note: Note) -> None:
    assert "relayd" in guest.run("cat /proc/asound/cards")
    printed = guest.run(f"PYTHONPATH={ROOT} {PYTHON} {ROOT}/tests/vm/inside/microphone.py")
    found = json.loads(printed.splitlines()[-1])
    note("microphone, ms from writing to reading (p5, p50, p95)", found["latency_ms"])
    assert found["silent_without_writer"]
    assert found["heard"] > 200
    assert found["in_order"]
    assert found["lost"] <= 20  # an emulated processor
    assert found["counts"][0] == 0
    assert 1 in found["counts"]
    assert found["counts"][-1] == 0
    assert found["missing"].startswith("no sound card none")
