"""Simulated surroundings of the state machine: service, links, source, readers and user.

It carries out the machine's commands with delays and random failures, and sends the results back
as events. All randomness comes from one seed, so a run can be repeated.
"""

import heapq
from dataclasses import dataclass, field
from random import Random

from relayd.akool.session import FaceChoice
from relayd.errors import (
    CredentialsRefused,
    FaceRejected,
    InternalFault,
    JoinFailed,
    JoinRefused,
    LibraryUnavailable,
    LinkForbidden,
    LinkLost,
    LinkStalled,
    QuotaExhausted,
    RelaydError,
    RequestRefused,
    ServerFault,
    ServiceUnreachable,
    SessionFailed,
    SessionUnknown,
    Throttled,
    WorkerDied,
)
from relayd.relay import commands as do
from relayd.relay import events as on
from relayd.relay.commands import Command
from relayd.relay.events import Event
from relayd.relay.machine import Machine
from relayd.relay.policy import Policy

FACES = tuple(FaceChoice(f"http://service.example/{name}.png") for name in "abc")
CAMERAS = "/dev/video0", "/dev/video1"
SERVICE_ERRORS: tuple[RelaydError, ...] = (
    CredentialsRefused("wrong key"),
    QuotaExhausted("no credit"),
    FaceRejected("no face"),
    RequestRefused("not now"),
    SessionUnknown("gone"),
    Throttled("slow", retry_after=90.0),
    ServerFault("503"),
    ServiceUnreachable("refused", sent=False),
    SessionFailed("given up"),
    InternalFault("oops"),
)
LINK_ERRORS: tuple[RelaydError, ...] = (
    LinkForbidden("wrong app id"),
    JoinRefused("wrong token"),
    JoinFailed("no connection"),
    LinkLost("broke"),
    LinkStalled("stalled"),
    WorkerDied("gone"),
    LibraryUnavailable("no library"),
)
FACE_ERRORS: tuple[RelaydError, ...] = (
    FaceRejected("no face"),
    RequestRefused("this cannot be operated on"),
    Throttled("slow"),
)
ANSWER_WITHIN = 10.0  # s that a close waits for a create in flight


@dataclass
class Chances:
    """Probabilities of failures, each from 0 to 1."""

    refuses: float = 0.0
    """Creates that are refused."""
    loses: float = 0.0
    """Creates whose answer is lost."""
    ignores: float = 0.0
    """Anything that is never answered."""
    ends: float = 0.0
    """Sessions that the service ends within minutes."""
    unready: float = 0.0
    """Workers that do not start."""
    unjoined: float = 0.0
    """Joins that fail."""
    dark: float = 0.0
    """Links that are joined and deliver nothing."""
    breaks: float = 0.0
    """Links that break within minutes."""
    unsteady: float = 0.0
    """Links that are interrupted within minutes, and repair themselves or not."""
    last_tokens: float = 0.0
    """Sessions whose token is final."""
    bad_faces: float = 0.0
    """Faces that are refused."""
    sourceless: float = 0.0
    """Times that the source does not open."""
    slowness: float = 1.0
    """Factor on all durations."""


@dataclass
class Record:
    """The state of one simulated session."""

    number: int
    link: int = 0
    """How many workers it had so far."""
    link_ready: bool = False
    join_ordered: bool = False
    create_ordered: bool = False
    answered: bool = False
    opened: bool = False
    ready: bool = False
    flowing: bool = False
    """Pictures arrive, as reported to the machine."""
    was_shown: bool = False
    close_ordered: float | None = None
    over: bool = False
    dark_since: float | None = None
    """Since when it is open, and shows nothing."""
    live_since: float | None = None
    link_up_at: float | None = None
    """When the first picture of its present link came."""
    rejoins: int = 0
    """New workers since the last picture."""
    short_links: int = 0
    """Links in a row that soon ended."""
    token_final: bool = False
    face: FaceChoice | None = None
    face_pending: bool = False


@dataclass(order=True)
class _Coming:
    moment: float
    order: float
    event: Event = field(compare=False)
    link: int | None = field(default=None, compare=False)


class World:
    """Carries out commands; `play` advances time and sends the resulting events."""

    def __init__(
        self, policy: Policy, chances: Chances, seed: int, doubts: tuple[float, ...]
    ) -> None:
        self.random = Random(seed)
        self.chances = chances
        self.now = 1000.0
        self.arguments = policy, FACES[0], doubts, seed
        self.machine = self.new_machine()
        self.records: dict[int, Record] = {}
        self.wake_at: float | None = None
        self.coming: list[_Coming] = []
        self.events = 0

    def new_machine(self) -> Machine:
        """Return a machine as this world's was in the beginning."""
        policy, face, doubts, seed = self.arguments
        return Machine(policy, face, doubts=doubts, jitter=Random(seed).random)

    def later(self, event: Event, seconds: float, link: int | None = None) -> None:
        """Send an event after about that many seconds."""
        seconds *= self.random.choice((0.0, 0.5, 1.0, 1.0, 1.0, 3.0)) * self.chances.slowness
        self.send_at(event, self.now + seconds, link)

    def send_at(self, event: Event, moment: float, link: int | None = None) -> None:
        """Send an event at a time."""
        heapq.heappush(self.coming, _Coming(moment, self.random.random(), event, link))

    def next_moment(self) -> float | None:
        """When the next thing happens."""
        moments = [self.coming[0].moment] if self.coming else []
        return min([*moments, *([] if self.wake_at is None else [self.wake_at])], default=None)

    def next_event(self) -> Event | None:
        """Take the next thing that happens; None: it was of a worker that was replaced."""
        head = self.coming[0] if self.coming else None
        timer = self.wake_at
        if timer is not None and (
            head is None
            or timer < head.moment
            or (timer == head.moment and self.random.random() < 0.5)
        ):
            self.now, self.wake_at = max(self.now, timer), None
            return on.TimerDue()
        coming = heapq.heappop(self.coming)
        self.now = max(self.now, coming.moment)
        if coming.link is None:
            return coming.event
        assert isinstance(coming.event, on.SessionEvent)
        record = self.records[coming.event.number]
        closing = record.close_ordered is not None
        return None if coming.link != record.link or closing else coming.event

    def happens(self, probability: float) -> bool:
        """Decide at random."""
        return self.random.random() < probability

    def carry_out(self, command: Command) -> None:
        """Start what the machine commanded."""
        match command:
            case do.WakeAt(moment):
                self.wake_at = moment
            case do.StartLink(number):
                self._start_link(self.records[number])
            case do.OpenSession(number):
                self._open(number)
            case do.JoinLink(number):
                self._join(self.records[number])
            case do.UpdateFace(number, face):
                refused = on.FaceRefused(number, face, self.random.choice(FACE_ERRORS))
                bad = self.happens(self.chances.bad_faces)
                self.later(refused if bad else on.FaceApplied(number, face), 0.5)
            case do.RenewToken(number) if self.happens(self.chances.last_tokens):
                self.later(on.TokenFinal(number), 0.5, self.records[number].link)
            case do.CloseSession(number):
                self._close(self.records[number])
            case do.ResumeSource() if self.happens(self.chances.sourceless):
                self.later(on.SourceDown("no such camera"), 0.7)
            case do.ResumeSource():
                self.later(on.SourceUp(), 0.7)
            case _:
                pass

    def _start_link(self, record: Record) -> None:
        chances, number, link = self.chances, record.number, record.link
        if self.happens(chances.ignores):
            return
        if self.happens(chances.unready):
            self.later(on.LinkLost(number, self.random.choice(LINK_ERRORS)), 0.5, link)
        else:
            self.later(on.LinkReady(number), 0.5, link)

    def _open(self, number: int) -> None:
        chances = self.chances
        if self.happens(chances.ignores):
            return
        if self.happens(chances.loses):
            self.later(on.SessionDoubtful(number, ServiceUnreachable("cut off")), 10.0)
        elif self.happens(chances.refuses):
            self.later(on.SessionRefused(number, self.random.choice(SERVICE_ERRORS)), 1.0)
        else:
            self.later(on.SessionOpened(number), 1.0)

    def opened(self, number: int) -> None:
        """Go on with a session that is open: its turn comes, and perhaps its end."""
        if self.happens(self.chances.ends):
            error = self.random.choice(SERVICE_ERRORS)
            self.later(on.SessionEnded(number, error), self.random.choice((1.0, 10.0, 60.0)))
        if not self.happens(self.chances.ignores):
            self.later(on.SessionReady(number), 5.0)

    def _join(self, record: Record) -> None:
        chances, number, link = self.chances, record.number, record.link
        if self.happens(chances.ignores):
            return
        if self.happens(chances.unjoined):
            self.later(on.LinkLost(number, self.random.choice(LINK_ERRORS)), 1.0, link)
            return
        self.later(on.LinkJoined(number), 1.0, link)
        if not self.happens(chances.dark):
            self.later(on.PicturesFlow(number), 2.0, link)
        if self.happens(chances.breaks):
            self.later(on.LinkLost(number, self.random.choice(LINK_ERRORS)), 30.0, link)
        if self.happens(chances.breaks):
            stopped = self.now + 20.0
            error = LinkStalled("no picture")
            self.send_at(on.PicturesStopped(number, error, stopped), stopped + 3.0, link)
        if self.happens(chances.unsteady):
            self.later(on.LinkDegraded(number, "interrupted"), 20.0, link)
            if self.happens(0.7):
                self.later(on.LinkRecovered(number), 30.0, link)
            if self.happens(0.7):
                self.later(on.PicturesFlow(number), 30.0, link)
        if self.happens(chances.last_tokens):
            self.later(on.TokenExpiring(number), 20.0, link)
            self.later(on.TokenFinal(number), 20.0, link)

    def _close(self, record: Record) -> None:
        """End what it was doing, but for a create in flight, which is waited for."""
        number, waited = record.number, self.now
        for coming in list(self.coming):
            event = coming.event
            if not isinstance(event, on.SessionEvent) or event.number != number:
                continue
            in_flight = isinstance(event, on.SessionOpened | on.SessionDoubtful | on.SessionRefused)
            if in_flight and coming.moment <= self.now + ANSWER_WITHIN:
                waited = max(waited, coming.moment)
            elif in_flight and isinstance(event, on.SessionDoubtful):
                coming.moment = waited = self.now + ANSWER_WITHIN
            elif not isinstance(event, on.FaceApplied | on.FaceRefused):
                self.coming.remove(coming)
        heapq.heapify(self.coming)
        if not self.happens(self.chances.ignores):
            closes_in = self.random.choice((0.0, 0.3, 2.0, 10.0))
            self.send_at(on.SessionClosed(number), waited + closes_in)
