"""Plays a recording: each picture when it is due, once or in a loop."""

from collections.abc import Iterator

from relayd.errors import SourceError
from relayd.media.picture import Picture
from relayd.media.skipping import SkipLevel
from relayd.source.ahead import AheadOfTime
from relayd.source.playing import Playback
from relayd.source.rounds import Rounds
from relayd.source.schedule import PlaybackSchedule


def play(playback: Playback, *, loop: bool, path: str | None) -> None:
    """Publish the pictures of a recording when each is due, once or in a loop.

    `path` is that of a local file, else None: it is watched for being replaced.
    """
    rounds = Rounds(playback, path)
    schedule = PlaybackSchedule(rounds.timing)
    with AheadOfTime(playback) as ahead:
        pictures = rounds.first()
        while _play_round(playback, rounds, pictures, schedule, ahead):
            if not ahead.hold(schedule.end_round()) or not loop:
                return
            pictures = rounds.next()
            schedule.start_round(rounds.timing)


def _play_round(
    playback: Playback,
    rounds: Rounds,
    pictures: Iterator[Picture],
    schedule: PlaybackSchedule,
    ahead: AheadOfTime,
) -> bool:
    """Play to the end; False when abandoned before it."""
    try:
        return all(_play_one(playback, picture, schedule, ahead) for picture in pictures)
    except SourceError:
        if not rounds.is_replaced:
            raise
        return not playback.is_abandoned  # written over while it was read


def _play_one(
    playback: Playback, picture: Picture, schedule: PlaybackSchedule, ahead: AheadOfTime
) -> bool:
    now = playback.clock.now()
    due = schedule.due(picture.pts, now, picture.duration, is_key=picture.is_key)
    level = playback.watch_decoding(schedule.behind(now), now)
    if schedule.left_out(now):
        playback.late += 1
        return not playback.is_abandoned
    # The next key picture may be far.
    return ahead.put(picture.i420(), due, stays=level is SkipLevel.ALL_BUT_KEYS)
