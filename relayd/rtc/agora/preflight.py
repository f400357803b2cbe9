"""Checks a join beforehand, so that no session is paid for that the channel would refuse."""

from relayd.errors import ConfigError, JoinRefused, LinkForbidden
from relayd.rtc.agora.error_codes import REFUSAL_PAUSE
from relayd.rtc.agora.token import TokenFacts
from relayd.rtc.link import LinkTarget

LARGEST_CHANNEL_NAME = 64
"""Bytes (NGIAgoraRtcConnection.h)."""
LARGEST_USER_ID = 2**32 - 1
"""For numeric ids; other ids need the service's text ids."""


def app_id_of(target: LinkTarget, facts: TokenFacts | None) -> str:
    """Return the Agora project; ConfigError if it is unknown, LinkForbidden if two are named."""
    named = facts.app_id if facts else ""
    if target.app_id and named and target.app_id != named:
        raise LinkForbidden(
            f"rtc.app_id = {target.app_id!r}, but the session's token is for {named!r}",
            hint="leave rtc.app_id empty: the token names the project",
        )
    if not (target.app_id or named):
        raise ConfigError(
            ['rtc.app_id = "": missing; neither the session nor its token names the Agora project']
        )
    return target.app_id or named


def validate_target(target: LinkTarget, facts: TokenFacts | None) -> None:
    """Raise JoinRefused for what the channel would refuse, or what would show our own picture."""
    engine, front, channel = target.algorithm_user_id, target.front_user_id, target.channel_id
    fault = ""
    if engine in {"0", front}:
        fault = f"the swap engine's user id {engine!r} stands for our own pictures"
    elif len(channel.encode()) > LARGEST_CHANNEL_NAME:
        fault = f"the channel's name is longer than {LARGEST_CHANNEL_NAME} bytes"
    elif facts and facts.channel and facts.channel != channel:
        fault = f"the token is for channel {facts.channel!r}, not {channel!r}"
    elif facts and facts.user_id and facts.user_id != front:
        fault = f"the token is for user {facts.user_id!r}, not {front!r}"
    if fault:
        error = JoinRefused(f"the session cannot be joined: {fault}")
        error.retry_after = REFUSAL_PAUSE
        raise error


def needs_text_ids(target: LinkTarget) -> bool:
    """Whether a user has an id that is no 32-bit number."""
    return not all(map(_is_number, (target.front_user_id, target.algorithm_user_id)))


def _is_number(user: str) -> bool:
    return user.isascii() and user.isdigit() and int(user) <= LARGEST_USER_ID
