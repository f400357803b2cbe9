"""Runs pip as a program: reads its configuration, and installs our wheel."""

import os
import sys
from pathlib import Path
from typing import Final

from relayd.errors import LibraryUnavailable
from relayd.process.child import run_to_end
from relayd.process.environment import proxies, python_environment
from relayd.rtc.agora.installation import INSTALL_COMMAND

TIME_LIMIT: Final = 300.0
"""s for one run; it fetches nothing, but a slow disk may take a minute."""
_HINTS: Final = {
    "externally-managed-environment": "install relayd into a virtual environment: python3 -m venv",
    "No module named pip": f"{sys.executable} -m ensurepip, then: {INSTALL_COMMAND}",
}
"""Hints by text in pip's output; the first is PEP 668's."""


def pip_settings() -> str:
    """Return the lines of `pip config list`; raises LibraryUnavailable."""
    return _pip("config", "list")


def pip_install(wheel: Path) -> None:
    """Install this wheel, whatever version is installed; raises LibraryUnavailable."""
    _pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))


def _pip(*arguments: str) -> str:
    own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    try:
        status, output, errors = run_to_end(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
            environment=python_environment() | proxies() | own,
            timeout=TIME_LIMIT,
            umask=0o022,  # root's may be stricter, but a service of another user must read it
        )
    except OSError as fault:  # TimeoutError is one
        raise LibraryUnavailable(f"pip {arguments[0]} failed: {fault}") from fault
    if status:
        lines = [line for line in errors.splitlines() if line.lower().startswith("error: ")]
        why = lines[0].split(": ", 1)[1] if lines else errors.strip()
        hint = next((hint for sign, hint in _HINTS.items() if sign in errors), "")
        raise LibraryUnavailable(f"pip {arguments[0]} failed: {why or 'no output'}", hint=hint)
    return output
