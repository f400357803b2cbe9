"""The runner: events in order, commands carried out, no exception fatal."""

import asyncio
from typing import cast

import pytest

from relayd.akool.session import FaceChoice
from relayd.errors import FaceRejected, RelaydError, ServerFault
from relayd.logs import LogEvent
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay import runner
from relayd.relay.machine import Machine
from relayd.relay.policy import Policy
from relayd.relay.runner import Runner
from tests.relay.links import FACE, Rig

OTHER = FaceChoice("http://127.0.0.1:9/b.png")


class World:
    """A runner with a fake session, and its reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = Rig(monkeypatch)
        self.reports: list[str] = []
        self.steered: list[bool] = []
        self.voiced: list[bool] = []
        self.runner = Runner(
            Machine(Policy(), FACE),
            self.rig.parts,
            on_report=self._take,
            steer_source=self.steered.append,
            steer_voice=self.voiced.append,
        )
        self._received = asyncio.Event()
        self.runner.attach_loop()

    def _take(self, report: do.Report) -> None:
        self.reports.append(report.state.value)
        self._received.set()

    async def until(self, state: str) -> None:
        async with asyncio.timeout(5):
            while self.reports[-1:] != [state]:
                self._received.clear()
                await self._received.wait()

    async def stop(self) -> None:
        self.runner.post(on.Stop())
        async with asyncio.timeout(5):
            await self.runner.until_idle()
        self.runner.stop_timer()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_a_session_goes_live_and_is_closed_at_the_stop(world: World) -> None:
    world.runner.post(on.Started())
    world.runner.post(on.SourceUp())
    await world.until("live")
    assert world.runner.sessions_open == 1
    assert world.runner.shown_id == "x"
    await world.stop()
    assert world.reports == [
        "standby", "opening", "queued", "joining", "waiting", "live", "closing",
    ]  # fmt: skip
    assert world.rig.session.closed.is_set()
    assert world.runner.sessions_open == 0
    assert world.runner.billed == 7.0


async def test_an_event_that_a_command_causes_at_once_is_handled_after_the_other_commands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Script:
        def handle(self, event: on.Event, now: float) -> list[do.Command]:
            order.append(type(event).__name__)
            return (
                [do.SuspendSource(), do.LogWarning(LogEvent.SESSION_ROTATION_FAILED, "")]
                if len(order) == 1
                else []
            )

    def steer(_: bool) -> None:  # noqa: FBT001 - as the runner calls it
        world.runner.post(on.SourceDown("let go of"))
        order.append("steered")

    monkeypatch.setattr(world.runner, "machine", cast("Machine", Script()))
    monkeypatch.setattr(world.runner, "_steer_source", steer)
    world.runner.post(on.Started())
    assert order == ["Started", "steered", "SourceDown"]


async def test_a_fault_in_the_machine_or_in_a_command_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = world.runner.machine.handle

    def faulty(event: on.Event, now: float) -> list[do.Command]:
        if event == on.Paused():
            raise ZeroDivisionError  # unexpected
        return handle(event, now)

    monkeypatch.setattr(world.runner.machine, "handle", faulty)
    monkeypatch.setattr(world.rig.gate, "thaw", lambda: 1 / 0)
    world.runner.post(on.Started())
    world.runner.post(on.Paused())
    world.runner.post(on.SourceUp())
    await world.until("live")
    await world.stop()


async def test_after_a_fault_at_a_timer_the_machine_runs_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    class Script:
        faults = 2

        def handle(self, event: on.Event, now: float) -> list[do.Command]:
            assert event == on.TimerDue()
            if self.faults:
                self.faults -= 1
                raise ZeroDivisionError  # unexpected
            looked.set()
            return [do.WakeAt(None)]

    monkeypatch.setattr(runner, "FAULT_RETRY", 0.01)
    monkeypatch.setattr(world.runner, "machine", cast("Machine", Script()))
    world.runner.post(on.TimerDue())
    async with asyncio.timeout(5):
        await looked.wait()
    assert world.runner._timer is None


async def test_the_machines_timer_is_the_only_one_and_ends_with_the_runner(world: World) -> None:
    world.runner.post(on.Started())
    world.runner.post(on.SourceUp())
    assert world.runner._timer is not None
    await world.until("live")
    await world.stop()
    assert world.runner._timer is None


@pytest.mark.parametrize("refusal", [None, FaceRejected("no face")])
async def test_choosing_a_face_returns_the_result_of_that_one_and_not_of_an_earlier_one(
    world: World, refusal: RelaydError | None
) -> None:
    world.runner.post(on.Started())
    world.runner.post(on.SourceUp())
    await world.until("live")
    for number in range(5):  # as its retries come, after nobody waits any more
        world.rig.session.refusal = None if refusal else ServerFault("not now")
        world.runner.post(on.FaceChosen(FaceChoice(f"http://127.0.0.1:9/{number}.png")))
        await asyncio.sleep(0.01)
    world.rig.session.refusal = refusal
    world.runner.post(on.FaceChosen(OTHER))
    assert await world.runner.until_face_answered(OTHER) is refusal
    await world.stop()
