"""The endpoints of the control server of `relayd run`: its socket, token and page URL."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from relayd.config import socket_folders
from relayd.config.paths import control_socket
from relayd.config.settings import ControlSettings, Settings
from relayd.control.access import Access, Token
from relayd.logs import LogEvent, get


def access_for(control: ControlSettings) -> Access:
    """Return the access rules; without a configured token, a random one is used for this start.

    A server without TCP has a random token as well, which is never shown.
    """
    own = control.token.get_secret_value()
    return Access(
        Token(own) if own else Token.random(),
        control.address[0] if control.address else "localhost",
        control.allowed_hosts,
        frozenset(control.public),
    )


def prepared_socket(settings: Settings, name: str) -> Path | None:
    """Return the control socket's path, after creating the fallback folder if it is in that.

    Returns None, with a warning, if that folder is unusable: another user may have created it to
    keep relays from starting.
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
    """Print the page's URL with its token if stdout is a terminal.

    Otherwise stdout may be a log that others read, such as the journal or a container's; there
    `relayd status` prints the URL.
    """
    if url is None or not sys.stdout.isatty():
        return
    with suppress(OSError):  # the terminal is gone
        sys.stdout.write(f"page: {url}\n")
        sys.stdout.flush()
