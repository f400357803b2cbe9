"""When to send a call to the service again, and how long to wait before.

Waits are jittered and doubled (stamina); the service's Retry-After is respected, unless it is
longer than a call should take: then the error is raised, and the caller waits.
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
"""Attempts of one call: longer waits are the relay's own, which the user sees."""
SPAN = 30.0
"""s after which no further attempt starts."""
FIRST_WAIT = 0.5
"""s, lower bound of the first wait."""
LONGEST_WAIT = 8.0
"""s between two attempts, also by Retry-After."""

_log = logs.get("akool")

P = ParamSpec("P")
T = TypeVar("T")


def _log_retry(details: RetryDetails) -> None:
    wait = round(details.wait_for, 2)
    _log.info(
        LogEvent.SERVICE_RETRY, after=wait, tries=details.retry_num, reason=str(details.caused_by)
    )


set_on_retry_hooks([_log_retry])


def worth_repeating(fault: Exception) -> bool | float:
    """Whether to send again (stamina's backoff hook): a wait in s, or True for the usual one."""
    if not isinstance(fault, ServiceError) or not fault.retryable:
        return False
    if isinstance(fault, Throttled) and fault.retry_after is not None:
        return fault.retry_after if fault.retry_after <= LONGEST_WAIT else False
    return True


def never_acted_on(fault: Exception) -> bool:
    """Whether the service certainly did not carry out the request.

    True when the request was never sent (refused, DNS, TLS), when it was rejected (429), and when
    the service itself reports a failure with one of its documented codes. A gateway's 502 or
    504, a cut or late answer and an invalid answer do not prove that.
    """
    if isinstance(fault, ServiceUnreachable):
        return not fault.sent
    return isinstance(fault, Throttled) or (
        isinstance(fault, ServiceError) and fault.code in BY_CODE
    )


def in_doubt(fault: Exception) -> bool:
    """Whether the service may have carried out the request although the call failed.

    False if it refused permanently or certainly did not act; True for an unexpected error.
    """
    if not isinstance(fault, ServiceError):
        return True
    return fault.retryable and not never_acted_on(fault)


def doubt_of(fault: Exception) -> SessionDoubtful:
    """Return the error that a session may be open, with the text of its cause."""
    reason = str(fault) if isinstance(fault, ServiceError) else f"{type(fault).__name__}: {fault}"
    return SessionDoubtful(
        f"a session may be open at the service: {reason}",
        hint="look at your account at the service",
        code=fault.code if isinstance(fault, ServiceError) else None,
    )


async def repeated(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call something that is safe to repeat; retry after failures that may pass."""
    return await _CALLER(worth_repeating, call, *args, **kwargs)


async def repeated_if_not_acted_on(
    call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call something that must not be done twice: retry only if `never_acted_on` holds."""
    return await _CALLER(
        lambda fault: never_acted_on(fault) and worth_repeating(fault), call, *args, **kwargs
    )


async def repeated_within(
    seconds: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Retry until `seconds` are over; then raise the last failure.

    Raises ServiceUnreachable when not even the first call ended in time.
    """
    last: ServiceError | None = None

    def note_failure(fault: Exception) -> bool | float:
        nonlocal last
        again = worth_repeating(fault)
        if again is not False and isinstance(fault, ServiceError):
            last = fault
        return again

    try:
        async with asyncio.timeout(seconds):
            return await _UNTIL_DEADLINE(note_failure, call, *args, **kwargs)
    except TimeoutError as late:
        raise last or ServiceUnreachable(f"no answer within {seconds:g} s") from late


_CALLER = stamina.AsyncRetryingCaller(
    attempts=ATTEMPTS,
    timeout=SPAN,
    wait_initial=FIRST_WAIT,
    wait_max=LONGEST_WAIT,
    wait_jitter=FIRST_WAIT,
)
_UNTIL_DEADLINE = stamina.AsyncRetryingCaller(
    attempts=None,
    timeout=None,
    wait_initial=FIRST_WAIT / 2,
    wait_max=LONGEST_WAIT / 4,
    wait_jitter=FIRST_WAIT,
)
