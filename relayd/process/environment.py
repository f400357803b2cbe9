"""What a child process gets of our environment: what is on a list, and nothing else.

Our environment may hold the account's key, other programs' secrets and anything a service
manager put there. A library of another maker, or FFmpeg, has no use for those.
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
    }
)
_PASSED_PREFIXES: Final = ("LC_", "XDG_")
_PYTHON_NAMES: Final = frozenset(
    {"PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"}
)
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
"""In lower case; libraries read both. Their URLs may hold a password."""


def program_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what any program gets of `environment` (ours by default)."""
    return {
        name: value
        for name, value in _ours(environment).items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }


def python_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a Python process of relayd gets: it must import the relayd that we are."""
    ours = _ours(environment)
    own = str(Path(relayd.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (own, ours.get("PYTHONPATH", ""))))
    python_settings = {name: value for name, value in ours.items() if name in _PYTHON_NAMES}
    return program_environment(ours) | python_settings | {"PYTHONPATH": path}


def proxies(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the proxy settings, for a child that speaks HTTP."""
    ours = _ours(environment)
    return {name: value for name, value in ours.items() if name.lower() in _PROXIES}


def _ours(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environment is None else environment
