"""Reload: applies those keys of a changed configuration that can change in a running relay.

SIGHUP reads file, environment and `--set` again. A configuration with any fault is refused as a
whole, and the running one stays. Of a valid one, the keys of `RELOADABLE` are applied at once; the
others are named in the log and in systemd's STATUS line until the relay is restarted or they are
changed back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relayd.config.settings import Settings
from relayd.errors import ConfigError, InternalFault, RelaydError
from relayd.logs import LogEvent, get, redact
from relayd.process import limits

RELOADABLE: Mapping[str, str] = {
    "face.image": "the session takes another face at any time",
    "face.landmarks": "they go with the face",
    "privacy.standby_image": "the picture is drawn again; the camera stays open",
    "privacy.standby_text": "the same",
    "sound.offset": "the delay line works it off",
    "sound.standby": "it is read when the relay's state changes",
    "akool.session_max": "it is read when a session begins",
    "akool.daily_limit": "the day's sum is compared with it again",
    "on_demand.grace": "it counts from when the last reader left, while its session is open",
}
"""Each key that a running relay can apply, and why it can.

All others need a restart. What is sent and shown (`video`, `output`) is fixed when the camera is
opened, which happens once. The relay's parts are built from `source`, `rtc`, `control`, `state`,
`on_demand.mode` and the account. `privacy.fallback` could change, but must not: what may be seen
of a person is decided before a call, not by an edit during it.
"""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload."""

    applied: tuple[str, ...] = ()
    """Keys that were applied."""
    restart_needed: tuple[str, ...] = ()
    """Keys that differ from the running ones and need a restart."""
    faults: tuple[str, ...] = ()
    """Why nothing was applied, one line each."""

    @property
    def note(self) -> str:
        """The result as text for the user; empty if everything is as the file says."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            return f"reload refused: {redact(self.faults[0])}{more}"
        if self.restart_needed:
            return f"restart needed for {', '.join(self.restart_needed)}"
        return ""


class Reloader:
    """Compares the running settings with newly read ones, and applies what can change."""

    def __init__(
        self,
        running: Settings,
        reread: Callable[[], Settings],
        apply: Callable[[Settings], Awaitable[None]],
    ) -> None:
        """`reread` returns settings that could run, or raises ConfigError.

        `apply` applies those that may change, all or none (Relay.apply).
        """
        self._running, self._reread, self._apply = running, reread, apply
        self._log = get("reload")

    async def reload(self) -> Reloaded:
        """Read again and apply what can change; failures are logged and returned, never raised."""
        try:
            wanted = await asyncio.to_thread(self._reread)
            changed = tuple(differences(self._running, wanted))
            applied = tuple(key for key in changed if key in RELOADABLE)
            merged = _merge(self._running, wanted, applied)
            if applied:
                await self._apply(merged)
        except RelaydError as fault:
            faults = tuple(fault.faults) if isinstance(fault, ConfigError) else (str(fault),)
            self._log.error(LogEvent.RELOAD_REFUSED, faults=list(faults))
            return Reloaded(faults=faults)
        except Exception as fault:  # noqa: BLE001 - the next reload may work
            self._log.exception(LogEvent.RELOAD_FAILED)
            return Reloaded(faults=(str(limits.error_for(fault) or InternalFault.of(fault)),))
        self._running = merged
        result = Reloaded(applied, tuple(key for key in changed if key not in RELOADABLE))
        self._log.info(LogEvent.RELOAD_DONE, applied=list(result.applied))
        if result.restart_needed:
            self._log.warning(LogEvent.RELOAD_RESTART_NEEDED, keys=list(result.restart_needed))
        return result


def differences(old: Settings, new: Settings) -> Iterator[str]:
    """Return each `section.key` whose value differs; `output` counts as one key."""
    for section in type(old).model_fields:
        was, now = getattr(old, section), getattr(new, section)
        if isinstance(was, list):
            if was != now:
                yield section
            continue
        for key in type(was).model_fields:
            if getattr(was, key) != getattr(now, key):
                yield f"{section}.{key}"


def _merge(old: Settings, new: Settings, keys: tuple[str, ...]) -> Settings:
    """Return `old` with these keys as in `new`."""
    changes: dict[str, Any] = {}
    for key in keys:
        section, name = key.split(".")
        table = changes.get(section, getattr(old, section))
        changes[section] = table.model_copy(update={name: getattr(getattr(new, section), name)})
    return old.model_copy(update=changes)
