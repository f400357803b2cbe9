"""Simulated days at random: invariants of the relay's state machine.

`PLAY_SECONDS=3600 pytest -s tests/relay/test_machine_invariants.py` plays for that long.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from relayd.akool.session import FaceChoice
from relayd.errors import LinkLost, LinkStalled
from relayd.relay import events as on
from relayd.relay.events import Event
from relayd.relay.holdoff import MAX_DOUBTS
from relayd.relay.policy import Policy
from tests.relay.watch import Watched
from tests.relay.world import CAMERAS, FACES, SERVICE_ERRORS, Chances

PLAY_SECONDS = float(os.environ.get("PLAY_SECONDS", "0"))
EXAMPLES, STEPS = 45, 40  # of each profile: 315 examples, some 6 s for all of them
LONGEST = 86400.0 if PLAY_SECONDS else 6 * 3600.0  # s
WAITS = (0.0, 0.001, 0.5, 3.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0, 600.0, 3600.0, LONGEST)
POLICIES = (
    Policy(),
    Policy(session_max=120.0),
    Policy(session_max=2700.0, stall_timeout=1.0, first_frame_timeout=5.0),
    Policy(on_demand=True),
    Policy(on_demand=True, grace=0.0, session_max=120.0),
)
SURROUNDINGS: tuple[Event, ...] = (
    *(on.ReadersChanged(camera, count) for camera in CAMERAS for count in (0, 0, 1, 1, 2, None)),
    *(on.SourceUp(), on.SourceUp(), on.SourceUp(), on.SourceDown("gone"), on.SourceEnded()),
    *(on.OutputsChanged(working=True), on.OutputsChanged(working=False, reason="unplugged")),
    *(on.BudgetChanged(spent=False), on.BudgetChanged(spent=True, reason="spent")),
    *(on.SleepComing(), on.WokeUp(), on.WokeUp(), on.TimerDue(), on.Paused(), on.Resumed()),
)
BETTER: tuple[Event, ...] = (
    on.WokeUp(), on.BudgetChanged(spent=False), on.OutputsChanged(working=True), on.SourceUp(),
    on.ReadersChanged(CAMERAS[0], 1),
)  # fmt: skip
FIGURES = {"examples": 0, "events": 0, "sessions": 0, "seconds": 0.0}


class Days(RuleBasedStateMachine):
    """A relay in a simulation whose failure chances and conditions change."""

    max_per_hour: int | None = None
    resumes = True

    @initialize(
        policy=st.sampled_from(POLICIES),
        seed=st.integers(0, 2**32),
        doubts=st.sampled_from([(), (), (999.0,), (100.0, 700.0, 900.0)]),
    )
    def begin(self, policy: Policy, seed: int, doubts: tuple[float, ...]) -> None:
        self.world = Watched(policy, self.chances(), seed, doubts)
        self.started = self.world.now
        self.world.send(on.SourceUp())
        self.world.send(on.Started())

    def chances(self) -> Chances:
        """Return the chances at the start."""
        return Chances()

    @rule(seconds=st.sampled_from(WAITS))
    def time_passes(self, seconds: float) -> None:
        self.world.play(seconds)

    @rule(seconds=st.floats(0.0, 100.0))
    def some_time_passes(self, seconds: float) -> None:
        self.world.play(seconds)

    @rule()
    def the_next_thing_happens(self) -> None:
        moment = self.world.next_moment()
        self.world.play(0.0 if moment is None else moment - self.world.now)

    @rule(event=st.sampled_from(SURROUNDINGS))
    def something_happens_around(self, event: Event) -> None:
        if self.resumes or event != on.Resumed():
            self.world.send(event)

    @rule()
    def all_around_is_well(self) -> None:
        for event in BETTER:
            self.world.send(event)
        if self.resumes and "pause" in self.world.reported.flags:
            self.world.send(on.Resumed())

    @rule(policy=st.sampled_from(POLICIES))
    def the_settings_change(self, policy: Policy) -> None:
        self.world.send(on.PolicyChanged(policy))

    @rule(face=st.sampled_from(FACES))
    def a_face_is_chosen(self, face: FaceChoice) -> None:
        if self.resumes:
            self.world.send(on.FaceChosen(face))

    @rule(kind=st.sampled_from(["lost", "ended", "stopped", "degraded", "recovered", "token", "?"]))
    def something_befalls_a_session(self, kind: str) -> None:
        world = self.world
        working = [each for each in world.machine.sessions.working if each.live_since is not None]
        if not working:
            return
        number = world.random.choice(working).number
        events: dict[str, on.SessionEvent] = {
            "lost": on.LinkLost(number, LinkLost("broke")),
            "ended": on.SessionEnded(number, world.random.choice(SERVICE_ERRORS)),
            "stopped": on.PicturesStopped(number, LinkStalled("stalled"), world.now - 3.0),
            "degraded": on.LinkDegraded(number, "interrupted"),
            "recovered": on.LinkRecovered(number),
            "token": on.TokenFinal(number),
        }
        world.send(events.get(kind, on.TokenExpiring(number)))

    @precondition(lambda self: any(each.over for each in self.world.records.values()))
    @rule()
    def something_is_told_late_of_a_session_that_is_gone(self) -> None:
        gone = [number for number, each in self.world.records.items() if each.over]
        number = self.world.random.choice(gone)
        for kind in (on.SessionOpened, on.SessionReady, on.LinkJoined, on.SessionClosed):
            self.world.send(kind(number))

    @precondition(lambda self: self.world.now - self.started > 1800.0)
    @rule(chance=st.integers(0, 9))
    def it_is_stopped(self, chance: int) -> None:
        if not chance:
            self.world.send(on.Stop())

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        world.check_history(*([self.max_per_hour] if self.max_per_hour else []))
        self.check_history()
        FIGURES["examples"] += 1
        FIGURES["events"] += len(world.played)
        FIGURES["sessions"] += len(world.creates)
        FIGURES["seconds"] += world.now - self.started
        world.send(on.Stop())
        world.play(100.0)
        assert world.machine.is_over
        assert all(record.over for record in world.records.values())

    def check_history(self) -> None:
        """Check the invariants of this simulation alone."""


class MoodyDays(Days):
    """Anything may go wrong, and change."""

    @rule(
        what=st.sampled_from([each.name for each in fields(Chances) if each.name != "slowness"]),
        value=st.sampled_from([0.0, 0.0, 0.2, 0.5, 1.0]),
    )
    def the_mood_changes(self, what: str, value: float) -> None:
        self.world.chances = replace(self.world.chances, **{what: value})

    @rule()
    def all_is_well_again(self) -> None:
        self.world.chances = Chances()

    def chances(self) -> Chances:
        return Chances(
            refuses=0.1, loses=0.02, ignores=0.05, ends=0.1, unready=0.1, unjoined=0.1, dark=0.1,
            breaks=0.3, unsteady=0.3, last_tokens=0.2, bad_faces=0.3, sourceless=0.1,
        )  # fmt: skip


class LosesEachAnswer(Days):
    """Each create may have left a session with an unknown id."""

    resumes = False

    def chances(self) -> Chances:
        return Chances(loses=1.0)

    def check_history(self) -> None:
        hours = (self.world.now - self.started) / 3600.0
        assert len(self.world.creates) <= MAX_DOUBTS * (1 + hours // 6)


class RefusesAll(Days):
    """No create succeeds, and the user does nothing."""

    resumes = False
    max_per_hour = 167  # each 22.5 s, the longest wait with the least jitter, and the first seven

    def chances(self) -> Chances:
        return Chances(refuses=1.0)


class ShowsNothing(RefusesAll):
    """Each session is opened, joined and billed, and shows nothing, or ends before."""

    def chances(self) -> Chances:
        return Chances(dark=1.0, ends=0.3, unjoined=0.3, ignores=0.1)


class EndsEachToken(Days):
    """Each session has a final token, and its link breaks often."""

    max_per_hour = 300

    def chances(self) -> Chances:
        return Chances(last_tokens=1.0, breaks=0.5)


class BreaksEachLink(Days):
    """Links break soon after they came up, some repair themselves, and rejoins mostly fail."""

    def chances(self) -> Chances:
        return Chances(breaks=1.0, unsteady=0.7, unjoined=0.4, dark=0.2, slowness=0.25)


PROFILES = [
    BreaksEachLink,
    Days,
    MoodyDays,
    LosesEachAnswer,
    RefusesAll,
    ShowsNothing,
    EndsEachToken,
]


@pytest.mark.timeout(120 + 1.5 * PLAY_SECONDS)
@pytest.mark.parametrize("profile", PROFILES, ids=lambda each: each.__name__)
@pytest.mark.no_cover  # traced it takes five times as long; the playbooks count
def test_random_events_for_days_break_no_invariant(profile: type[Days]) -> None:
    few = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS if not PLAY_SECONDS else 4 * STEPS,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + PLAY_SECONDS / len(PROFILES)
    run_state_machine_as_test(profile, settings=few)
    while time.monotonic() < end:
        run_state_machine_as_test(profile, settings=few)


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    began = time.process_time()
    yield
    days, seconds = FIGURES["seconds"] / 86400.0, time.process_time() - began
    print(  # noqa: T201 - figures for people
        f"\n{FIGURES['examples']} examples, {FIGURES['events']} events, {FIGURES['sessions']}"
        f" sessions, {days:.0f} simulated days in {seconds:.0f} s of CPU"
    )
