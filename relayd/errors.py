"""All errors of relayd, as one tree.

RelaydError
├── UsageError                  a command was called wrongly
├── NotRunning                  a command needs a running relay, and none runs
├── ConfigError                 a setting is missing, unknown or impossible
├── Unavailable                 something on this machine is missing or busy
│   ├── CameraUnavailable
│   ├── LibraryUnavailable
│   ├── AddressUnavailable
│   ├── RelayHidden             a relay may run in a folder that this user may not read
│   ├── RelayStuck              a relay runs but does not answer
│   ├── BusUnavailable *        the system's D-Bus, or logind on it, does not answer
│   │   └── BusMissing          there is no such bus
│   └── SleepLockRefused        logind does not let this user delay a sleep
├── SourceError
│   ├── SourceUnreachable *     it could not be opened for now
│   ├── SourceLost *            it was open and ended or stalled
│   └── SourceUnusable          it has no video, or it cannot be decoded
├── ServiceError                what the face-swap service answered
│   ├── CredentialsRefused
│   ├── QuotaExhausted
│   ├── RequestRefused
│   │   ├── FaceRejected        no face, several faces, unreadable image
│   │   └── SessionUnknown      the session does not exist (any more)
│   ├── Throttled *
│   ├── ServerFault *           the service failed, or its answer was invalid
│   ├── ServiceUnreachable *    no answer: refused, timed out, cut, TLS
│   └── SessionDoubtful *       create's answer was lost: a session may be open
├── LinkError                   the real-time transport
│   ├── LinkForbidden           refused for every session: app id, ban, licence
│   ├── JoinRefused             token, channel or codec refused: another session may work
│   ├── JoinFailed *            no connection within the deadline
│   ├── LinkLost *              connected, then gone
│   ├── LinkStalled *           connected, but swapped frames stopped
│   └── WorkerDied *            the process that carries the link ended
├── OutputError *               a stream output refused or broke
├── SessionFailed *             the service gave up the session
└── InternalFault *             a bug in relayd

A star marks errors that are retried automatically.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import ClassVar, Self


class ExitCode(IntEnum):
    """A command's exit status; systemd and scripts rely on it."""

    CLEAN = 0
    """Done, or ended by SIGTERM or SIGINT."""
    FAILED = 1
    """An error without its own code."""
    USAGE = 2
    """The command line was wrong."""
    NOT_RUNNING = 3
    """No relay runs, or none of this name."""
    UNAVAILABLE = 69
    """Something needed is missing: camera, RTC library, address (EX_UNAVAILABLE)."""
    REFUSED = 77
    """Credentials or quota were refused for good (EX_NOPERM)."""
    CONFIG = 78
    """The configuration is wrong (EX_CONFIG)."""


class RelaydError(Exception):
    """The root: a message for people, and a hint such as the command that fixes it."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    retry_after: float | None = None
    """The least wait before the next attempt, in seconds, if the peer asked for one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(RelaydError):
    """A command was called wrongly."""

    exit_code = ExitCode.USAGE


class NotRunning(RelaydError):
    """A command needs a running relay, and none runs."""

    exit_code = ExitCode.NOT_RUNNING


class ConfigError(RelaydError):
    """Settings are wrong; `faults` holds one line each with key, value and hint."""

    exit_code = ExitCode.CONFIG

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Unavailable(RelaydError):
    """Something on this machine is missing or busy."""

    exit_code = ExitCode.UNAVAILABLE


class CameraUnavailable(Unavailable):
    """No loopback camera can be written."""


class MicrophoneUnavailable(Unavailable):
    """No virtual microphone can be made or written."""

    retryable = True


class LibraryUnavailable(Unavailable):
    """An optional Python or native library is not installed."""


class AddressUnavailable(Unavailable):
    """A socket or port could not be bound."""


class RelayHidden(Unavailable):
    """A relay may run in a folder that this user may not read."""


class RelayStuck(Unavailable):
    """A relay runs but does not answer: stopped, frozen or overloaded."""


class BusUnavailable(Unavailable):
    """The system's D-Bus, or a service on it, does not answer."""

    retryable = True


class BusMissing(BusUnavailable):
    """There is no such bus."""

    retryable = False


class SleepLockRefused(Unavailable):
    """logind does not let this user delay the machine's sleep."""


class SourceError(RelaydError):
    """An error of the video source."""

    exit_code = ExitCode.UNAVAILABLE
    symptom: str = ""
    """What a look at the source may explain better (relayd.media.refusals); empty if clear."""


class SourceUnreachable(SourceError):
    """The source could not be opened for now."""

    retryable = True


class SourceLost(SourceError):
    """The source was open, then ended or stalled."""

    retryable = True


class SourceUnusable(SourceError):
    """The source has no video, or it cannot be decoded."""


class ServiceError(RelaydError):
    """An error of the face-swap service; `code` is its business code, if there was one."""

    def __init__(self, message: str, *, hint: str = "", code: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class CredentialsRefused(ServiceError):
    """Key, secret or token are wrong, or the account is blocked."""

    exit_code = ExitCode.REFUSED


class QuotaExhausted(ServiceError):
    """The account has no credit left."""

    exit_code = ExitCode.REFUSED


class RequestRefused(ServiceError):
    """The service rejects the request."""


class FaceRejected(RequestRefused):
    """The face image has no face, several, or cannot be read by the service."""


class SessionUnknown(RequestRefused):
    """The named session does not exist (any more)."""


class Throttled(ServiceError):
    """Too many requests."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after = retry_after


class ServerFault(ServiceError):
    """The service failed, or its answer was invalid."""

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class ServiceUnreachable(ServiceError):
    """No answer at all: refused, timed out, cut off, TLS.

    `sent` is False only if the request was certainly not sent: the service cannot have
    acted on it.
    """

    retryable = True
    exit_code = ExitCode.UNAVAILABLE

    def __init__(
        self, message: str, *, hint: str = "", code: int | None = None, sent: bool = True
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.sent = sent


class SessionDoubtful(ServiceError):
    """A session may be open at the service: the answer to create was lost or invalid.

    Trying again may open another unknown session: wait for minutes, and limit the attempts.
    """

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class LinkError(RelaydError):
    """An error of the real-time transport."""

    exit_code = ExitCode.UNAVAILABLE


class LinkForbidden(LinkError):
    """The peer refuses us for every session: app id, ban, licence."""


class JoinRefused(LinkError):
    """The peer refused token, channel or codec; another session may work."""


class JoinFailed(LinkError):
    """No connection was made within the deadline."""

    retryable = True


class LinkLost(LinkError):
    """The connection was there, then gone."""

    retryable = True


class LinkStalled(LinkError):
    """The connection is there, but swapped frames stopped."""

    retryable = True


class WorkerDied(LinkError):
    """The process that carries the link ended by itself."""

    retryable = True


class OutputError(RelaydError):
    """A stream output refused or broke."""

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class SessionFailed(RelaydError):
    """The service gave up the session."""

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class InternalFault(RelaydError):
    """Something failed unexpectedly: a bug in relayd itself."""

    retryable = True

    @classmethod
    def of(cls, fault: BaseException, *, hint: str = "a fault of relayd") -> Self:
        """Return the error for an unexpected exception."""
        return cls(f"unexpected {type(fault).__name__}: {fault}", hint=hint)


def causes(fault: BaseException) -> Iterator[BaseException]:
    """Return an exception, a group's members, and what each was raised from, outermost first."""
    seen: set[int] = set()
    waiting = [fault]
    while waiting:
        error = waiting.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        waiting += [cause for cause in (error.__context__, error.__cause__) if cause]
