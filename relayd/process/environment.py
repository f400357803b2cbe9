"""The environment of child processes: an allow list of ours, and nothing else.

Our environment may contain the account's key, other programs' secrets and anything a service
manager put there. A third-party library, or FFmpeg, does not need those.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import relayd

_PASSED: Final = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",  # an interpreter may need it to start at all
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "PULSE_SERVER",  # where the sound server is, and the name of the file with its cookie
        "PULSE_COOKIE",
        "PULSE_RUNTIME_PATH",
    }
)
_PASSED_PREFIXES: Final = ("LC_", "XDG_")
_PYTHON_NAMES: Final = frozenset(
    {"PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"}
)
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
"""In lower case; libraries read both. Their URLs may hold a password."""


def program_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the part of `environment` (ours by default) that any program gets."""
    return {
        name: value
        for name, value in _ours(environment).items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }


def python_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a Python process of relayd: it must import this same relayd."""
    ours = _ours(environment)
    own = str(Path(relayd.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (own, ours.get("PYTHONPATH", ""))))
    python_settings = {name: value for name, value in ours.items() if name in _PYTHON_NAMES}
    return program_environment(ours) | python_settings | {"PYTHONPATH": path}


def proxies(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the proxy settings, for a child that uses HTTP."""
    ours = _ours(environment)
    return {name: value for name, value in ours.items() if name.lower() in _PROXIES}


def _ours(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environment is None else environment
