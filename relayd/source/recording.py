"""Plays a recording: each picture when it is due, once or in a loop."""

from collections.abc import Iterator
from dataclasses import dataclass

from relayd.errors import SourceError
from relayd.media.picture import Picture
from relayd.media.skipping import SkipLevel
from relayd.source.ahead import AheadOfTime
from relayd.source.hearing import TimedHearing
from relayd.source.playing import Playback
from relayd.source.rounds import Rounds
from relayd.source.schedule import PlaybackSchedule


def play(playback: Playback, *, loop: bool, path: str | None) -> None:
    """Publish the pictures of a recording when each is due, once or in a loop.

    `path` is that of a local file, else None: it is watched for being replaced.
    """
    rounds = Rounds(playback, path)
    schedule = PlaybackSchedule(rounds.timing)
    with (
        TimedHearing(playback.publish_sound, playback.clock) as hearing,
        AheadOfTime(playback) as ahead,
    ):
        player = _Player(playback, schedule, ahead, hearing)
        pictures = rounds.first()
        playback.source.hear(hearing)
        while player.play(rounds, pictures):
            end = schedule.end_round()
            hearing.next_round(end)
            if not ahead.hold(end) or not loop:
                return
            pictures = rounds.next()
            playback.source.hear(hearing)
            schedule.start_round(rounds.timing)


@dataclass(frozen=True, slots=True)
class _Player:
    """Plays the rounds of a recording."""

    playback: Playback
    schedule: PlaybackSchedule
    ahead: AheadOfTime
    hearing: TimedHearing

    def play(self, rounds: Rounds, pictures: Iterator[Picture]) -> bool:
        """Play a round to its end; False when abandoned before it."""
        try:
            return all(self._play_one(picture) for picture in pictures)
        except SourceError:
            if not rounds.is_replaced:
                raise
            return not self.playback.is_abandoned  # written over while it was read

    def _play_one(self, picture: Picture) -> bool:
        playback, schedule = self.playback, self.schedule
        now = playback.clock.now()
        due = schedule.due(picture.pts, now, picture.duration, is_key=picture.is_key)
        self.hearing.note_picture(picture.pts, due)
        level = playback.watch_decoding(schedule.behind(now), now)
        if schedule.left_out(now):
            playback.late += 1
            return not playback.is_abandoned
        # The next key picture may be far.
        return self.ahead.put(picture.i420(), due, stays=level is SkipLevel.ALL_BUT_KEYS)
