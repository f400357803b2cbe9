"""Every failure relayd can name, as one tree.

RelaydError
├── UsageError                  a command was called wrongly
├── NotRunning                  a command to a running relay finds none
├── ConfigError                 a setting is missing, unknown or impossible
├── Unavailable                 something of this machine is missing or busy
│   ├── CameraUnavailable
│   ├── LibraryUnavailable
│   ├── AddressUnavailable
│   ├── RelayHidden             a relay may run where this user may not look
│   ├── RelayStuck              a relay runs and does not answer
│   ├── BusUnavailable *        the system's D-Bus, or logind on it, does not answer
│   │   └── BusMissing          there is no such bus
│   └── SleepLockRefused        logind lets nobody here delay a sleep
├── SourceError
│   ├── SourceUnreachable *     it could not be opened, now
│   ├── SourceLost *            it was open and ended or stalled
│   └── SourceUnusable          it has no video, or nothing can decode it
├── ServiceError                what the face-swap service answered
│   ├── CredentialsRefused
│   ├── QuotaExhausted
│   ├── RequestRefused
│   │   ├── FaceRejected        no face, several faces, unreadable image
│   │   └── SessionUnknown      the session is not, or no longer, there
│   ├── Throttled *
│   ├── ServerFault *           the service failed, or its answer made no sense
│   ├── ServiceUnreachable *    no answer: refused, timed out, cut, TLS
│   └── SessionDoubtful *       create's answer was lost: a session may be open
├── LinkError                   the real-time transport
│   ├── LinkForbidden           refused whatever the session: app id, ban, licence
│   ├── JoinRefused             token, channel or codec refused: another session may get in
│   ├── JoinFailed *            no connection within the deadline
│   ├── LinkLost *              connected, then gone
│   ├── LinkStalled *           connected, but swapped frames stopped
│   └── WorkerDied *            the process that carries the link ended
├── OutputError *               a stream output refused or broke
├── SessionFailed *             the service gave the session up
└── InternalFault *             relayd itself is at fault

A star marks what is worth trying again without a person.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import ClassVar, Self


class ExitCode(IntEnum):
    """What a command's exit status says; systemd and scripts rely on it."""

    CLEAN = 0
    """Done, or ended by SIGTERM or SIGINT."""
    FAILED = 1
    """An error that no other code names."""
    USAGE = 2
    """The command line was wrong."""
    NOT_RUNNING = 3
    """No relay runs that could be asked, or none of this name."""
    UNAVAILABLE = 69
    """Something needed is missing: camera, RTC library, address (EX_UNAVAILABLE)."""
    REFUSED = 77
    """Credentials or quota were refused for good (EX_NOPERM)."""
    CONFIG = 78
    """The configuration is wrong (EX_CONFIG)."""


class RelaydError(Exception):
    """The root: a sentence for a person, and where known the command that fixes it."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    retry_after: float | None = None
    """The least wait before the next try, in seconds, where whoever refused asked for one."""

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
    """A command to a running relay finds none."""

    exit_code = ExitCode.NOT_RUNNING


class ConfigError(RelaydError):
    """Settings are wrong; `faults` holds one line each with key, value and hint."""

    exit_code = ExitCode.CONFIG

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Unavailable(RelaydError):
    """Something of this machine is missing or busy."""

    exit_code = ExitCode.UNAVAILABLE


class CameraUnavailable(Unavailable):
    """No loopback camera can be written."""


class LibraryUnavailable(Unavailable):
    """An optional Python or native library is not installed."""


class AddressUnavailable(Unavailable):
    """A socket or port could not be bound."""


class RelayHidden(Unavailable):
    """A relay may run where this user may not look."""


class RelayStuck(Unavailable):
    """A relay runs and does not answer: stopped, frozen or overloaded."""


class BusUnavailable(Unavailable):
    """The system's D-Bus, or a service on it, does not answer."""

    retryable = True


class BusMissing(BusUnavailable):
    """There is no such bus."""

    retryable = False


class SleepLockRefused(Unavailable):
    """logind gives no lock on the machine's sleep."""


class SourceError(RelaydError):
    """The video source."""

    exit_code = ExitCode.UNAVAILABLE


class SourceUnreachable(SourceError):
    """The source could not be opened, now."""

    retryable = True


class SourceLost(SourceError):
    """The source was open, then ended or stalled."""

    retryable = True


class SourceUnusable(SourceError):
    """The source has no video, or nothing here can decode it."""


class ServiceError(RelaydError):
    """The face-swap service's answer; `code` is its business code where it gave one."""

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
    """The service finds fault with what it was asked."""


class FaceRejected(RequestRefused):
    """The face image has no face, several, or cannot be read by the service."""


class SessionUnknown(RequestRefused):
    """The session named is not, or no longer, there."""


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
    """The service failed, or its answer made no sense."""

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class ServiceUnreachable(ServiceError):
    """No answer at all: refused, timed out, cut off, TLS.

    `sent` is False only where the request certainly never left: the service cannot have
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
    """A session may be open at the service: create was sent, and its answer was lost or senseless.

    Trying again may open one more that nobody knows of: wait for minutes, and not for ever.
    """

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class LinkError(RelaydError):
    """The real-time transport."""

    exit_code = ExitCode.UNAVAILABLE


class LinkForbidden(LinkError):
    """The far side refuses us whatever the session: app id, ban, licence."""


class JoinRefused(LinkError):
    """The far side refused token, channel or codec; another session may be let in."""


class JoinFailed(LinkError):
    """No connection came about within the deadline."""

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
    """The service gave the session up."""

    retryable = True
    exit_code = ExitCode.UNAVAILABLE


class InternalFault(RelaydError):
    """Something failed that nothing here foresees: a fault of relayd itself."""

    retryable = True

    @classmethod
    def of(cls, fault: BaseException, *, hint: str = "a fault of relayd") -> Self:
        """Return the error for an exception that nothing here expects."""
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
