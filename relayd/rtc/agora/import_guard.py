"""Imports Agora's wrapper without the side effects of its import.

The wrapper (2.4.10) switches TLS verification off for urllib in the whole process, downloads
into site-packages, logs errors that are none, and ends the process when its library
cannot be read. Exceptions in its callbacks are lost.
"""

import contextlib
import logging
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

from relayd import logs
from relayd.errors import LibraryUnavailable
from relayd.logs import LogEvent
from relayd.rtc.agora.installation import INSTALL_COMMAND

_log = logs.get("agora")


@contextlib.contextmanager
def guarded_import() -> Iterator[None]:
    """Import the wrapper in this block; LibraryUnavailable says why that failed."""
    wrapper_log = logging.getLogger("agora")
    level = wrapper_log.level
    wrapper_log.setLevel(logging.CRITICAL)
    try:
        with (
            _restored(ssl, "_create_default_https_context"),
            _restored(urllib.request, "urlretrieve", meanwhile=_no_download),
        ):
            yield
    except (Exception, SystemExit) as fault:
        raise LibraryUnavailable(
            f"rtc.kind = 'agora': the native library cannot be used: {_describe(fault)}",
            hint=INSTALL_COMMAND,
        ) from fault
    finally:
        wrapper_log.setLevel(level)
    sys.unraisablehook = _report_unraisable


@contextlib.contextmanager
def _restored(module: ModuleType, name: str, meanwhile: Any = None) -> Iterator[None]:
    """Restore a module attribute after the block; `meanwhile` replaces it within."""
    value = getattr(module, name)
    setattr(module, name, meanwhile or value)
    try:
        yield
    finally:
        setattr(module, name, value)


def _no_download(url: str, *_: object, **__: object) -> NoReturn:
    raise ImportError(f"its import wants to download {url}")


def _describe(fault: BaseException) -> str:
    if isinstance(fault, SystemExit):
        return "the wrapper could not read it and ended"
    return f"{type(fault).__name__}: {fault}"


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Log what was raised in a callback; the native library that called it does not see it."""
    _log.error(
        LogEvent.SDK_CALLBACK_FAILED,
        where=str(unraisable.err_msg or unraisable.object),
        reason=f"{unraisable.exc_type.__name__}: {unraisable.exc_value}",
    )
