"""`relayd check`: tries each part that `run` needs, and says how to fix what is wrong."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from relayd.akool.connect import open_journal
from relayd.akool.doubts import KEPT_FOR
from relayd.commands.check_media import check_outputs, check_source
from relayd.commands.check_service import check_face, check_rtc, check_service
from relayd.commands.check_sound import check_sound
from relayd.commands.finding import Finding
from relayd.commands.open_sessions import describe_doubtful, describe_unreadable
from relayd.config.paths import state_directory
from relayd.config.settings import Settings
from relayd.control.endpoints import prepared_socket
from relayd.control.server import try_to_bind
from relayd.errors import ConfigError, InternalFault, RelaydError, Unavailable
from relayd.output.standby import StandbyRenderer
from relayd.process import limits
from relayd.process.name_lock import NameLock
from relayd.source.progress import longest_start

PART_TIMEOUT = 20.0
"""s that any part may take, with its retries; then it is given up. The source has limits of its
own, which count on top."""


async def run_checks(
    settings: Settings, name: str, on_finding: Callable[[Finding], None] = lambda _finding: None
) -> list[Finding]:
    """Try each part in turn, whether or not others fail; returns all findings.

    `name` is the relay's name as in `run`; `on_finding` gets each finding at once.
    """
    findings: list[Finding] = []

    def note(found: list[Finding]) -> None:
        for finding in found:
            findings.append(finding)
            on_finding(finding)

    for part in PARTS:
        if part == "face" and any(
            found.part == "service" and found.is_failure for found in findings
        ):
            note(
                [Finding.warning("face", "not tried, as the service does not answer as it should")]
            )
        else:
            note(await check_part(part, settings, name))
    return findings


async def check_part(part: str, settings: Settings, name: str) -> list[Finding]:
    """Try one of PARTS as `run` would use it; returns its findings and never raises."""
    limit = PART_TIMEOUT + (longest_start(settings.source) if part == "source" else 0.0)
    try:
        async with asyncio.timeout(limit):
            return await PARTS[part](settings, name)
    except TimeoutError:
        fault = Unavailable(f"given up after {limit:g} s without an answer")
        return [Finding.failed(part, fault)]
    except ConfigError as fault:
        return [Finding.failed(part, line) for line in fault.faults]
    except RelaydError as fault:
        return [Finding.failed(part, fault)]
    except Exception as fault:  # noqa: BLE001 - the other parts are still tried
        return [Finding.failed(part, limits.error_for(fault) or InternalFault.of(fault))]


async def _check_journal(settings: Settings, _name: str) -> list[Finding]:
    journal = open_journal(settings)
    await asyncio.to_thread(journal.probe)
    contents = await asyncio.to_thread(journal.contents)
    doubts = await asyncio.to_thread(journal.doubts, time.time() - KEPT_FOR)
    found = []
    if left := [record.id for record in contents.records if not record.held]:
        why = f"{len(left)} session(s) left open: {', '.join(left)}"
        found.append(Finding.warning("journal", why, "relayd sessions close, or start the relay"))
    if contents.unreadable:
        why = describe_unreadable(contents.unreadable)
        found.append(Finding.warning("journal", why, "relayd sessions list says what to do"))
    if unknown := [doubt for doubt in doubts if not doubt.held]:
        why, hint = describe_doubtful(unknown), "look at your account at the service"
        found.append(Finding.warning("journal", why, hint))
    return found or [Finding.ok("journal", "can be written; nothing is left open")]


async def _check_name(settings: Settings, name: str) -> list[Finding]:
    directory = state_directory(settings)
    holder = await asyncio.to_thread(NameLock(directory, name).holder)
    if holder is None:
        return []
    why = f"{str(directory)!r} is in use by a running relay {name!r} ({holder})"
    hint = "ignore it if that is intended: a second `relayd run` with this name is refused"
    return [Finding.warning("name", why, hint)]


async def _check_control(settings: Settings, name: str) -> list[Finding]:
    if await asyncio.to_thread(NameLock(state_directory(settings), name).holder):
        return []  # a running relay uses them; the part "name" reports it
    path = await asyncio.to_thread(prepared_socket, settings, name)
    await try_to_bind(path, settings.control.address)
    where = " and ".join(str(one) for one in (path, settings.control.http) if one)
    return [Finding.ok("control", f"{where} can be served")]


async def _check_standby(settings: Settings, _name: str) -> list[Finding]:
    StandbyRenderer(settings.video.geometry, settings.privacy.standby_image)
    if settings.privacy.fallback == "raw":
        why = 'fallback = "raw" shows the true face whenever the swap is away'
        return [Finding.warning("privacy", why, 'set [privacy] fallback = "standby"')]
    return []


PARTS: Mapping[str, Callable[[Settings, str], Awaitable[list[Finding]]]] = {
    "journal": _check_journal,
    "name": _check_name,
    "control": _check_control,
    "rtc": check_rtc,
    "service": check_service,
    "face": check_face,
    "source": check_source,
    "output": check_outputs,
    "sound": check_sound,
    "standby": _check_standby,
}
"""The parts that `run` needs, in the order in which they are tried."""
