"""Importing Agora's wrapper without what its import does to the process.

The wrapper (2.4.10) switches TLS verification off for urllib in the whole process, downloads
into site-packages, logs errors where there are none, and ends the process when its library
cannot be read. Exceptions in its callbacks vanish.
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
from relayd.rtc.agora.installation import MEND

_log = logs.get("agora")


@contextlib.contextmanager
def guarded_import() -> Iterator[None]:
    """Import the wrapper in this block; LibraryUnavailable says why that failed."""
    wrapper_log = logging.getLogger("agora")
    level = wrapper_log.level
    wrapper_log.setLevel(logging.CRITICAL)
    try:
        with (
            _kept(ssl, "_create_default_https_context"),
            _kept(urllib.request, "urlretrieve", meanwhile=_no_download),
        ):
            yield
    except (Exception, SystemExit) as fault:
        raise LibraryUnavailable(
            f"rtc.kind = 'agora': the native library cannot be used: {_words(fault)}", hint=MEND
        ) from fault
    finally:
        wrapper_log.setLevel(level)
    sys.unraisablehook = _report_unraisable


@contextlib.contextmanager
def _kept(module: ModuleType, name: str, meanwhile: Any = None) -> Iterator[None]:
    """Return a name of a module its value back, whatever the block makes of it."""
    value = getattr(module, name)
    setattr(module, name, meanwhile or value)
    try:
        yield
    finally:
        setattr(module, name, value)


def _no_download(url: str, *_: object, **__: object) -> NoReturn:
    raise ImportError(f"its import wants to download {url}")


def _words(fault: BaseException) -> str:
    if isinstance(fault, SystemExit):
        return "the wrapper could not read it and ended"
    return f"{type(fault).__name__}: {fault}"


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Log what was raised in a callback; the native library that called it never hears of it."""
    _log.error(
        LogEvent.SDK_CALLBACK_FAILED,
        where=str(unraisable.err_msg or unraisable.object),
        reason=f"{unraisable.exc_type.__name__}: {unraisable.exc_value}",
    )
