"""When a call to the service is worth sending again, and how long to wait before.

Waits are jittered and double (stamina); a Retry-After that the service names is kept, unless it
is longer than a call should take: then the error is raised, for the caller to wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from relayd import logs
from relayd.akool.error_codes import BY_CODE
from relayd.errors import ServiceError, ServiceUnreachable, SessionDoubtful, Throttled
from relayd.logs import LogEvent

ATTEMPTS = 3
"""Sendings of one call: more is the relay's own wait, which people see."""
SPAN = 30.0
"""s after which no further sending starts."""
FIRST_WAIT = 0.5
"""s, lower bound of the first wait."""
LONGEST_WAIT = 8.0
"""s between two sendings, a Retry-After included."""

_log = logs.get("akool")

P = ParamSpec("P")
T = TypeVar("T")


def _tell(details: RetryDetails) -> None:
    wait = round(details.wait_for, 2)
    _log.info(
        LogEvent.SERVICE_RETRY, after=wait, tries=details.retry_num, reason=str(details.caused_by)
    )


set_on_retry_hooks([_tell])


def worth_repeating(fault: Exception) -> bool | float:
    """Say whether to send again (stamina's backoff hook): a wait in s, or by the usual waits."""
    if not isinstance(fault, ServiceError) or not fault.retryable:
        return False
    if isinstance(fault, Throttled) and fault.retry_after is not None:
        return fault.retry_after if fault.retry_after <= LONGEST_WAIT else False
    return True


def never_acted_on(fault: Exception) -> bool:
    """Whether the service certainly did not do what it was asked.

    True when the request never left (refused, DNS, TLS), when it was turned away (429), and when
    the service itself says by one of its documented codes that it failed. A gateway's 502 or
    504, a cut or late answer and an answer that makes no sense say nothing of the kind.
    """
    if isinstance(fault, ServiceUnreachable):
        return not fault.sent
    return isinstance(fault, Throttled) or (
        isinstance(fault, ServiceError) and fault.code in BY_CODE
    )


def in_doubt(fault: Exception) -> bool:
    """Whether the service may have done what it was asked although the call failed.

    Not where it refused for good or certainly did not act; an error that nothing here foresees
    says neither.
    """
    if not isinstance(fault, ServiceError):
        return True
    return fault.retryable and not never_acted_on(fault)


def doubt_of(fault: Exception) -> SessionDoubtful:
    """Say that a session may be open, in the words of what hides it."""
    words = str(fault) if isinstance(fault, ServiceError) else f"{type(fault).__name__}: {fault}"
    return SessionDoubtful(
        f"a session may be open at the service: {words}",
        hint="look at your account at the service",
        code=fault.code if isinstance(fault, ServiceError) else None,
    )


async def repeated(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what may be done twice without harm, again after failures worth it."""
    return await _CALLER(worth_repeating, call, *args, **kwargs)


async def repeated_if_not_acted_on(
    call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call what must not be done twice: again only where `never_acted_on` holds."""
    return await _CALLER(
        lambda fault: never_acted_on(fault) and worth_repeating(fault), call, *args, **kwargs
    )


async def repeated_within(
    seconds: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call again and again until `seconds` are over; then raise the last failure.

    Raises ServiceUnreachable when not even the first call ended in time.
    """
    last: ServiceError | None = None

    def note(fault: Exception) -> bool | float:
        nonlocal last
        again = worth_repeating(fault)
        if again is not False and isinstance(fault, ServiceError):
            last = fault
        return again

    try:
        async with asyncio.timeout(seconds):
            return await _PATIENT(note, call, *args, **kwargs)
    except TimeoutError as late:
        raise last or ServiceUnreachable(f"no answer within {seconds:g} s") from late


_CALLER = stamina.AsyncRetryingCaller(
    attempts=ATTEMPTS,
    timeout=SPAN,
    wait_initial=FIRST_WAIT,
    wait_max=LONGEST_WAIT,
    wait_jitter=FIRST_WAIT,
)
_PATIENT = stamina.AsyncRetryingCaller(
    attempts=None,
    timeout=None,
    wait_initial=FIRST_WAIT / 2,
    wait_max=LONGEST_WAIT / 4,
    wait_jitter=FIRST_WAIT,
)
