"""The cost of a day: the whole relay without its media, on a simulated clock."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from relayd.akool.client import AkoolClient
from relayd.akool.history import ClosedSession
from relayd.akool.journal import Journal
from relayd.akool.models import LiveSession, Status
from relayd.clock import Backoff
from relayd.config.loading import load_tree
from relayd.config.settings import Settings
from relayd.errors import LinkLost, QuotaExhausted, RelaydError, SourceError
from relayd.relay import worker_link
from relayd.relay.conditions import NO_READERS, STILL_CLOSING
from relayd.relay.events import ReadersChanged
from relayd.relay.holdoff import BLOCKED_RETRY, OPEN_BACKOFF
from relayd.relay.pipeline import Pipeline
from relayd.relay.relay import Relay, _source_event
from relayd.relay.status import DemandState, RelayState
from relayd.relay.view import SOON
from relayd.rtc.link import LinkEvent, LinkEventKind, LinkTarget
from relayd.source.events import SourceDown, SourceEvent, SourceOpened
from tests.support.virtual import LoopClock, VirtualLoop

CAMERA = "/dev/video0"
HOUR = 3600.0
GRACE = 30.0
CREATE, QUEUE_AND_JOIN, CLOSE = 1.0, 8.0, 0.5  # s; a start takes 5 to 15 s
SOURCE_OPENS = 0.7  # s
OPENED = SourceOpened(640, 480, 30.0, "h264", "live")


class Service:
    """A fake client of the service that opens and closes sessions."""

    base_url = "http://service.example"
    account = ""

    def __init__(self) -> None:
        self.created: list[float] = []
        self.refusal: RelaydError | None = None
        self.closes_in = CLOSE

    async def create(self, image_url: str, landmarks: str) -> LiveSession:
        self.created.append(asyncio.get_running_loop().time())
        await asyncio.sleep(CREATE)
        if self.refusal:
            raise self.refusal
        session = LiveSession.read(
            {
                "_id": f"session{len(self.created)}",
                "faceswap_status": 2,
                "channel_id": "channel",
                "front_user_id": "1",
                "algorithm_user_id": "2",
                "front_rtc_token": "token",
                "app_id": "app",
            }
        )
        assert session is not None
        return session

    async def close(self, session_id: str, *, within: float) -> bool:
        await asyncio.sleep(self.closes_in)
        return True

    async def status(self, session_id: str) -> Status:
        return Status.PROCESSING

    async def credit(self) -> None:
        return None


def settings(folder: Path, mode: str = "auto", grace: float = GRACE) -> Settings:
    return load_tree(
        {
            "face": {
                "image": "http://service.example/a.png",
                "landmarks": "1,2:3,4:5,6:7,8",
            },
            "akool": {"api_key": "key"},
            "rtc": {"kind": "webrtc"},
            "on_demand": {"mode": mode, "grace": grace},
            "output": [{"kind": "camera", "device": CAMERA}],
            "state": {"directory": str(folder)},
        }
    )


class Worker:
    """Loads and joins without a process; its pictures never stop."""

    pid = None

    def __init__(self, *_: Any, on_event: Callable[[LinkEvent], None], **__: Any) -> None:
        self._tell = on_event
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._tell(LinkEvent(LinkEventKind.READY))

    def join(self, _: LinkTarget) -> None:
        for kind in (LinkEventKind.JOINED, LinkEventKind.FIRST_PICTURE):
            self._loop.call_later(QUEUE_AND_JOIN, self._tell, LinkEvent(kind))

    def stop(self, _within: float) -> None:
        pass


class Day:
    """A relay with one camera, and a schedule of events."""

    def __init__(
        self, loop: VirtualLoop, folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        self.loop, self.service = loop, Service()
        self.awake: list[tuple[float, bool]] = []
        self.states: list[tuple[float, RelayState]] = []
        self.source_fault: SourceError | None = None
        journal = Journal(folder, wall=loop.time)
        self.history = journal.history
        self.relay = Relay(
            settings(folder, mode),
            "studio",
            cast("AkoolClient", self.service),
            journal,
            clock=LoopClock(loop),
            on_change=lambda state, _reason: self.states.append((loop.time(), state)),
        )
        self._leave_out_media(monkeypatch)

    def _leave_out_media(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(*_: object) -> None:
            pass

        for name in ("start_outputs", "stop_outputs", "stop_source", "set_standby_text"):
            monkeypatch.setattr(Pipeline, name, nothing)
        monkeypatch.setattr(Pipeline, "outputs_working", lambda _: True)
        monkeypatch.setattr(Pipeline, "start_source", lambda _: self._open_source())
        monkeypatch.setattr(Pipeline, "resume_source", lambda _: self._turn_source(awake=True))
        monkeypatch.setattr(Pipeline, "suspend_source", lambda _: self._turn_source(awake=False))
        monkeypatch.setattr(worker_link, "RtcWorker", Worker)

    def _turn_source(self, *, awake: bool) -> None:
        self.awake.append((self.loop.time(), awake))
        if awake:
            self._open_source()

    def _open_source(self) -> None:
        event = SourceDown(self.source_fault, 1.0) if self.source_fault else OPENED
        self.loop.call_later(SOURCE_OPENS, self._tell_source, event)

    def _tell_source(self, event: SourceEvent) -> None:
        self.relay._runner.post(_source_event(event))

    def tell_readers(self, count: int | None) -> None:
        self.relay._runner.post(ReadersChanged(CAMERA, count))

    def at(self, seconds: float, action: Callable[..., object], *what: object) -> None:
        self.loop.call_at(seconds, action, *what)

    def reads(self, begin: float, end: float) -> None:
        self.at(begin, self.tell_readers, 1)
        self.at(end, self.tell_readers, 0)

    def pass_until(self, end: float) -> None:
        stop = asyncio.Event()
        self.at(end, stop.set)
        self.loop.run_until_complete(self.relay.run(stop))

    def at_state(self, state: RelayState) -> list[float]:
        return [moment for moment, entered in self.states if entered is state]


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Day]]:
    days: list[Day] = []

    @contextmanager
    def begun() -> Iterator[Callable[..., Day]]:
        def begin(mode: str = "auto") -> Day:
            folder = tmp_path / str(len(days))
            days.append(Day(VirtualLoop(), folder, monkeypatch, mode))
            return days[-1]

        yield begin
        for one in days:
            one.relay.pipeline._draw_pool.shutdown()
            one.loop.close()

    with begun() as begin:
        yield begin


def billed(day: Day) -> float:
    return day.history.spent(0.0, float("inf")).seconds


def test_a_day_of_eight_hours_with_two_calls_of_one_hour_costs_the_two_calls(
    day: Callable[..., Day], capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {}
    for mode in ("auto", "never"):
        one = day(mode)
        one.reads(2 * HOUR, 3 * HOUR)
        one.reads(6 * HOUR, 7 * HOUR)
        one.pass_until(8 * HOUR)
        seconds[mode] = billed(one)
    with capsys.disabled():
        print(f"\nbilled: {seconds['auto']:.0f} s on demand, {seconds['never']:.0f} s without")  # noqa: T201 - a figure for people
    # A rotation costs both sessions while the next one starts: one a call, ten a day.
    start = CREATE + QUEUE_AND_JOIN + CLOSE
    assert 2 * HOUR < seconds["auto"] < 2 * (HOUR + GRACE + start + 3)
    assert 8 * HOUR - start < seconds["never"] < 8 * HOUR + 11 * start
    assert seconds["auto"] / seconds["never"] < 0.26


def test_an_idle_day_costs_nothing_and_never_opens_the_source(day: Callable[..., Day]) -> None:
    one = day()
    healthy: list[bool] = []
    one.at(4 * HOUR, lambda: healthy.append(one.relay.status().healthy))
    one.pass_until(8 * HOUR)
    assert one.service.created == []
    assert one.awake == [(0.0, False)]
    assert healthy == [True]
    assert {state for _, state in one.states} == {
        RelayState.STANDBY, RelayState.CLOSING, RelayState.STOPPED,
    }  # fmt: skip


def test_session_and_source_are_opened_side_by_side_with_the_first_reader(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.reads(100.0, 400.0)
    one.pass_until(1000.0)
    assert one.awake == [(0.0, False), (100.0, True), (pytest.approx(400 + GRACE, abs=2), False)]
    (asked,) = one.service.created
    assert asked - 100.0 <= 1.0  # one look of this clock, before the source had a picture
    (live,) = one.at_state(RelayState.LIVE)
    assert live - 100.0 <= 1.0 + CREATE + QUEUE_AND_JOIN + 1.0
    (session,) = one.history.sessions()
    assert session.closed == pytest.approx(400 + GRACE + CLOSE, abs=3)


def test_a_short_gap_keeps_session_and_source(day: Callable[..., Day]) -> None:
    one = day()
    one.reads(100.0, 200.0)
    one.reads(200.0 + GRACE - 1, 300.0)
    one.pass_until(1000.0)
    assert len(one.service.created) == 1
    assert [awake for _, awake in one.awake] == [False, True, False]


def test_a_reloaded_shorter_grace_time_closes_the_session_of_a_reader_who_left(
    day: Callable[..., Day], tmp_path: Path
) -> None:
    one = day()
    one.reads(100.0, 200.0)
    shorter = settings(tmp_path, grace=5.0)
    one.at(210.0, lambda: one.loop.create_task(one.relay.apply(shorter)))
    one.pass_until(600.0)
    (session,) = one.history.sessions()
    assert session.closed == pytest.approx(210.0 + CLOSE, abs=1.1)  # one look of this clock


def test_a_reader_who_comes_back_while_the_session_is_being_closed_gets_a_new_one(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.service.closes_in = 8.0
    one.reads(100.0, 200.0)
    one.reads(200.0 + GRACE + 4.0, 300.0)
    one.pass_until(600.0)
    assert len(one.service.created) == 2
    closing, back = one.history.sessions()
    assert closing.closed <= back.opened
    assert any(at == pytest.approx(234.0, abs=1.0) for at, awake in one.awake if awake)


def test_a_reader_who_leaves_during_the_opening_costs_no_more_than_the_grace_time(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.reads(100.0, 100.0 + CREATE + 2)
    one.pass_until(1000.0)
    (session,) = one.history.sessions()
    assert isinstance(session, ClosedSession)
    assert session.closed - session.opened < GRACE + 6
    assert one.relay.status().sessions_open == 0


def test_the_end_of_a_relay_that_is_live_on_demand_closes_its_session(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.reads(100.0, 2 * HOUR)
    one.pass_until(HOUR)
    assert billed(one) == pytest.approx(HOUR - 100.0, abs=CREATE + QUEUE_AND_JOIN + CLOSE)


def test_a_source_that_failed_costs_one_short_session_and_then_none(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.source_fault = SourceError("no such camera")
    for hour in range(1, 7):
        one.reads(hour * HOUR, hour * HOUR + 600)
    one.pass_until(8 * HOUR)
    assert len(one.service.created) <= 1
    assert billed(one) < CREATE + CLOSE + 2


def test_a_refused_relay_does_not_retry_without_readers(day: Callable[..., Day]) -> None:
    one = day()
    one.service.refusal = QuotaExhausted("no credit")
    seen: list[tuple[RelayState, bool]] = []
    one.reads(100.0, 160.0)
    one.at(5 * HOUR, lambda: seen.append((one.relay.status().state, one.relay.status().healthy)))
    one.pass_until(8 * HOUR)
    assert len(one.service.created) == 1
    assert seen == [(RelayState.BLOCKED, False)]


def test_a_new_reader_ends_the_wait_after_a_refusal(day: Callable[..., Day]) -> None:
    one = day()
    one.service.refusal = QuotaExhausted("no credit")
    one.reads(100.0, 160.0)
    one.at(200.0, setattr, one.service, "refusal", None)
    one.reads(300.0, 400.0)
    one.pass_until(1000.0)
    assert len(one.service.created) == 2
    assert one.service.created[1] - 300.0 <= 3.0


def test_a_reader_who_stays_gets_another_try_after_the_long_wait(day: Callable[..., Day]) -> None:
    one = day()
    one.service.refusal = QuotaExhausted("no credit")
    one.reads(100.0, 100.0 + 2.5 * BLOCKED_RETRY)
    one.pass_until(HOUR)
    assert len(one.service.created) == 3


def test_readers_that_come_and_go_all_day_do_not_flood_a_service_that_refuses(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.relay._runner.machine.conditions.readers.grace = 0.0
    one.service.refusal = QuotaExhausted("no credit")
    for second in range(100, 1900, 2):
        one.reads(second, second + 1)
    one.pass_until(2000.0)
    _, longest = OPEN_BACKOFF
    assert len(one.service.created) <= 1800 / (longest * 0.75) + 8
    late = [moment for moment in one.service.created if moment > 300]
    assert min(b - a for a, b in pairwise(late)) >= longest * 0.75


def test_a_paused_relay_stays_paused_when_readers_come(day: Callable[..., Day]) -> None:
    one = day()
    reasons: list[str] = []

    def soon(job: Callable[[], Any]) -> None:
        one.loop.create_task(job())

    one.at(50.0, soon, one.relay.pause)
    one.reads(100.0, 1000.0)
    one.at(200.0, lambda: reasons.append(one.relay.status().reason))
    one.at(500.0, soon, one.relay.resume)
    one.at(600.0, lambda: reasons.append(one.relay.status().state.value))
    one.pass_until(2000.0)
    assert reasons == ["paused", "live"]
    assert len(one.service.created) == 1
    assert one.service.created[0] >= 500.0


def test_a_face_set_without_readers_is_used_by_the_next_session(day: Callable[..., Day]) -> None:
    one = day()
    asked: list[str] = []
    create = one.service.create

    async def noted(image_url: str, landmarks: str) -> LiveSession:
        asked.append(image_url)
        return await create(image_url, landmarks)

    one.service.create = noted  # type: ignore[method-assign]  # a diary
    one.at(
        50.0,
        lambda: one.loop.create_task(
            one.relay.set_face("http://service.example/b.png", "1,2:3,4:5,6:7,8")
        ),
    )
    one.reads(100.0, 200.0)
    one.pass_until(500.0)
    assert asked == ["http://service.example/b.png"]


def test_readers_that_cannot_be_seen_make_a_session_stay_open(day: Callable[..., Day]) -> None:
    one = day()
    one.at(10.0, one.tell_readers, None)
    seen: list[object] = []
    one.at(HOUR, lambda: seen.extend([one.relay.status().on_demand, one.relay.status().readers]))
    one.pass_until(2 * HOUR)
    assert seen == [DemandState.OFF, {CAMERA: None}]
    assert billed(one) > 2 * HOUR - 60


def test_while_idle_it_reports_that_no_program_reads(day: Callable[..., Day]) -> None:
    one = day()
    seen: list[tuple[str, DemandState]] = []
    for moment in (50.0, 200.0, 900.0):
        one.at(
            moment,
            lambda: seen.append((one.relay.status().reason, one.relay.status().on_demand)),
        )
    one.reads(100.0, 300.0)
    one.pass_until(1000.0)
    assert seen == [
        (NO_READERS, DemandState.IDLE), ("", DemandState.LIVE), (NO_READERS, DemandState.IDLE),
    ]  # fmt: skip


def test_no_session_is_created_for_a_reader_who_left_before_there_was_one(
    day: Callable[..., Day], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(*_: object) -> str:
        await asyncio.sleep(5.0)
        return "1,2:3,4:5,6:7,8"

    one = day()
    monkeypatch.setattr(one.relay._keeper, "landmarks", slowly)
    one.reads(100.0, 102.0)
    one.pass_until(600.0)
    assert one.service.created == []


def test_a_reader_who_comes_back_within_the_grace_time_ends_the_wait_after_a_refusal(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.service.refusal = QuotaExhausted("no credit")
    one.reads(100.0, 160.0)
    one.at(165.0, setattr, one.service, "refusal", None)
    one.reads(170.0, 1000.0)
    one.pass_until(1100.0)
    assert len(one.service.created) == 2
    assert one.service.created[1] - 170.0 <= 3.0


def look_at(one: Day, *moments: float) -> list[tuple[RelayState, str, bool]]:
    """Return state, reason and health at these times."""
    seen: list[tuple[RelayState, str, bool]] = []

    def look() -> None:
        status = one.relay.status()
        seen.append((status.state, status.reason, status.healthy))

    for moment in moments:
        one.at(moment, look)
    return seen


def test_a_reader_who_comes_while_a_session_is_closed_is_informed_of_that(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.service.closes_in = 10.0
    one.reads(100.0, 200.0)
    one.reads(200.0 + GRACE + 4.0, 300.0)
    seen = look_at(one, 200.0 + GRACE + 3.0, 200.0 + GRACE + 5.0)
    one.pass_until(400.0)
    assert seen == [
        (RelayState.STANDBY, NO_READERS, True),
        (RelayState.STANDBY, STILL_CLOSING, False),
    ]


def test_a_wait_for_the_next_try_is_reported_with_its_reason(
    day: Callable[..., Day], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next_wait", lambda _: 20.0)
    one = day()
    one.relay._runner.machine.conditions.readers.grace = 0.0
    one.reads(100.0, 103.0)
    one.reads(108.0, 400.0)
    seen = look_at(one, 112.0)
    one.pass_until(400.0)
    assert seen == [(RelayState.STANDBY, SOON, False)]
    assert len(one.service.created) == 2


def test_a_resume_ends_the_wait_for_the_next_try(
    day: Callable[..., Day], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "next_wait", lambda _: 1000.0)
    one = day()
    one.relay._runner.machine.conditions.readers.grace = 0.0
    one.reads(100.0, 103.0)
    one.reads(108.0, 400.0)
    one.at(150.0, lambda: one.loop.create_task(one.relay.resume()))
    one.pass_until(400.0)
    assert len(one.service.created) == 2
    assert one.service.created[1] - 150.0 <= 2.0


def test_a_program_that_reopens_the_camera_does_not_open_short_sessions_in_a_row(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.relay._runner.machine.conditions.readers.grace = 0.0
    for second in range(100, 3700, 15):
        one.reads(second, second + 12)
    one.pass_until(4000.0)
    _, longest = OPEN_BACKOFF
    late = [moment for moment in one.service.created if moment > 400]
    assert min(b - a for a, b in pairwise(late)) >= longest * 0.75
    assert len(one.service.created) < 3600 / (longest * 0.75)


def test_an_old_session_without_readers_gets_no_successor(
    day: Callable[..., Day],
) -> None:
    one = day()
    one.relay._runner.machine._policy = replace(
        one.relay._runner.machine._policy, session_max=200.0
    )
    one.reads(100.0, 300.0)  # it is live from about 110 on, and due at 310
    one.pass_until(1000.0)
    assert len(one.service.created) == 1


def test_a_suspended_source_counts_as_away_so_that_no_late_picture_is_shown(
    day: Callable[..., Day],
) -> None:
    one = day()
    alive: list[bool] = []
    one.reads(100.0, 200.0)
    one.at(150.0, lambda: alive.append(one.relay.status().source_alive))
    one.at(900.0, lambda: alive.append(one.relay.status().source_alive))
    one.pass_until(1000.0)
    assert alive == [True, False]


class Aging(Worker):
    """The link of the first session breaks for good, while or after its successor joins."""

    breaks_at = 0.0
    joins_in = QUEUE_AND_JOIN
    made = 0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        Aging.made += 1
        self._number = Aging.made

    def join(self, target: LinkTarget) -> None:
        if target.session_id == "session1":
            if self._number == 1:
                super().join(target)
                error = LinkLost("the old link broke")
                lost = LinkEvent(LinkEventKind.LOST, error=error)
                self._loop.call_at(self.breaks_at, self._tell, lost)
        else:
            for kind in (LinkEventKind.JOINED, LinkEventKind.FIRST_PICTURE):
                self._loop.call_later(self.joins_in, self._tell, LinkEvent(kind))


@pytest.mark.parametrize("joins_in", [8.0, 14.5], ids=["soon", "after both rejoins failed"])
def test_a_successor_takes_over_from_an_old_link_that_dies_and_no_third_session_is_opened(
    day: Callable[..., Day], monkeypatch: pytest.MonkeyPatch, joins_in: float
) -> None:
    one = day("never")
    life = 2700.0
    monkeypatch.setattr(worker_link, "RtcWorker", Aging)
    monkeypatch.setattr(Aging, "breaks_at", life + 13.0)
    monkeypatch.setattr(Aging, "joins_in", joins_in)
    monkeypatch.setattr(Aging, "made", 0)
    one.pass_until(life + 150.0)
    assert len(one.service.created) == 2
    first, second = one.history.sessions()
    live = [moment for moment, state in one.states if state is RelayState.LIVE]
    (taken_over,) = [moment for moment in live if moment > life]
    assert taken_over == pytest.approx(second.opened + joins_in, abs=1.0)
    assert first.closed == pytest.approx(taken_over + CLOSE, abs=1.0)
    after = {state for moment, state in one.states if life + 12.0 < moment < life + 149.0}
    assert after == {RelayState.DEGRADED, RelayState.LIVE}
