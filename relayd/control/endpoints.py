"""How the control server of `relayd run` is reached: its socket, its token, its page's URL."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from relayd.config import socket_folders
from relayd.config.settings import ControlSettings, Settings, control_socket
from relayd.control.access import Access, Token
from relayd.logs import LogEvent, get


def access_for(control: ControlSettings) -> Access:
    """Return what lets requests over TCP in; without a token of the user's own, one for this start.

    A server that serves nothing over TCP has one as well, which nobody is told.
    """
    own = control.token.get_secret_value()
    return Access(
        Token(own) if own else Token.random(),
        control.address[0] if control.address else "localhost",
        control.allowed_hosts,
        frozenset(control.public),
    )


def prepared_socket(settings: Settings, name: str) -> Path | None:
    """Return where the control socket goes, with the fallback folder made where it is that.

    None, with a warning, where that folder cannot be had: another user may have made one of its
    name to keep relays from starting.
    """
    path = control_socket(settings, name)
    uid = os.geteuid()
    if path.parent != socket_folders.fallback(uid):
        return path
    log = get("control")
    if reason := socket_folders.make_fallback(uid):
        log.warning(
            LogEvent.CONTROL_NO_SOCKET,
            reason=reason,
            hint="set XDG_RUNTIME_DIR or [control] socket; `relayd status` cannot find this relay",
        )
        return None
    log.info(LogEvent.CONTROL_SOCKET_IN_TMP, path=str(path), reason="XDG_RUNTIME_DIR is not set")
    return path


def show_page(url: str | None) -> None:
    """Print the page's URL with its token where a person reads along.

    Elsewhere stdout may be a log, such as the journal or a container's, which others read:
    there `relayd status` is asked.
    """
    if url is None or not sys.stdout.isatty():
        return
    with suppress(OSError):  # a terminal that is gone
        sys.stdout.write(f"page: {url}\n")
        sys.stdout.flush()
