"""Fetches the files of an HLS stream for FFmpeg's demuxer, and paces its reloads.

FFmpeg parses and demuxes; this module hands it each file that it asks for:

- a master playlist with one variant alone, so that no other's segments are fetched, not even to
  probe them (PyAV's `Stream.discard`, from 18 on, comes too late for that);
- a live playlist only when it has something new. The waiting is done here, so that it can be
  cancelled, survives a playlist that is away for a moment, and asks shortly before the next
  segment is expected (FFmpeg waits for a whole segment each time, whose phase stays as it was
  when the stream was opened: up to a segment of delay).
"""

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Final

import av.error

from relayd.errors import SourceError, SourceUnusable
from relayd.media.fetch import (
    ByteSource,
    Nothing,
    fetch_text,
    local_path,
    open_file,
)
from relayd.media.frames import Geometry
from relayd.media.hls_playlist import (
    MediaPlaylist,
    by_parts,
    choose_sound,
    choose_variant,
    for_reading,
    is_master,
    is_playlist,
    master_of,
    parse_media,
    part_length,
    variants,
    with_whole_addresses,
)
from relayd.media.origins import (
    is_from_web,
    joined,
    may_be_opened,
    may_share,
    options_for,
    plain_url,
)
from relayd.media.place import Place, find_place

DEMUXER: Final = "hls"
OPTIONS: Final = {"http_persistent": "0", "http_multiple": "0", "live_start_index": "-1"}
"""Each file on its own, as this module hands them over; a live stream from its newest segment."""
NO_SEGMENTS: Final = {"allowed_segment_extensions": "-"}
"""Lets FFmpeg open what turns out to be HLS without fetching any of it, so without video."""
SHORTEST_POLL: Final = 0.2
LONGEST_POLL: Final = 0.5
"""s between two requests for a playlist that has not changed when it was expected to."""
POLLS_PER_SEGMENT: Final = 10
"""A segment's duration over this is the wait between such requests, within those bounds."""
RETRIES: Final = 3
"""Attempts at a segment; then it is left out."""


class ReloadTimer:
    """When to ask for a live playlist again: near the moment at which it changes.

    It changes each segment's duration. When a request brought something new at once, that moment
    lies some time before it, so the next request is made earlier by the `lead`; at first by all.
    """

    def __init__(self) -> None:
        self._lead: float | None = None
        self._misses = 0

    def changed(self, duration: float) -> float:
        """Return the seconds to wait after a request that brought a segment of `duration` s."""
        poll = self._poll(duration)
        if self._lead is None:
            self._lead = duration
        elif self._misses:
            self._lead = poll
        else:
            self._lead = min(2 * self._lead, duration / 2)
        self._misses = 0
        return max(poll, duration - self._lead)

    def unchanged(self, duration: float) -> float:
        """Return the seconds to wait after a request that brought nothing new."""
        self._misses += 1
        return self._poll(duration)

    def _poll(self, duration: float) -> float:
        return min(max(duration / POLLS_PER_SEGMENT, SHORTEST_POLL), LONGEST_POLL)


class HlsFiles:
    """The files of one HLS stream, as `io_open` of a container; used by the thread that demuxes."""

    def __init__(
        self,
        url: str,
        name: str,
        options: Mapping[str, str],
        geometry: Geometry,
        *,
        timeout: float,
        cancelled: Event,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` replaces the URL in errors; `timeout` limits each request, s.

        `cancelled` ends the waiting: FFmpeg's call then ends with an error.
        """
        self._main, self._name, self._options = url, name, dict(options)
        self._geometry, self._cancelled, self._now = geometry, cancelled, now
        self._timeout = timeout
        self.start = url
        """The playlist to begin with."""
        self._sound = ""
        """That of the sound, if it has one of its own."""
        self._playlists = {url}
        self._from_web = is_from_web(url)
        """Whether somebody else than the user has written what was read so far."""
        self._has_credentials = not options.keys().isdisjoint(("headers", "cookies"))
        self._places: dict[str, Place] = {}
        self._first = ""
        self._served: MediaPlaylist | None = None
        self._served_text = ""
        self._sequence = 0
        self._last_opened = ("", 0)
        self._asks_again = False
        self._timer, self._next_at = ReloadTimer(), 0.0
        self.burst = 0.0
        """s of the longest segment listed so far: how long nothing may arrive. 0.0 for a
        recording."""

    def fetch(self) -> bool:
        """Fetch the playlist; False if it is none. Raises what opening a URL by PyAV raises."""
        self._first = self._fetch(self.start)
        return is_playlist(self._first)

    def beside(self, cancelled: Event) -> "HlsFiles | None":
        """Return the files of the sound that has a playlist of its own; None if there is none.

        To be called when the pictures are open. What is secret goes to the same servers as before.
        """
        if not self._sound or not self._may_open(self._sound):
            return None
        files = HlsFiles(
            self._main,
            self._name,
            self._options,
            self._geometry,
            timeout=self._timeout,
            cancelled=cancelled,
            now=self._now,
        )
        files.start, files._playlists = self._sound, {self._sound}
        files._from_web, files._places = self._from_web, dict(self._places)
        return files

    def __call__(self, url: str, _flags: int, options: dict[str, str]) -> ByteSource:
        """Return the file that FFmpeg asks for; waits for the next live playlist."""
        if url in self._playlists:
            return _Text(self._playlist(url))
        return self._segment(url, options)

    def _playlist(self, url: str) -> str:
        if self._served is not None and not self._served.has_ended:
            return self._next_live(url)
        text, self._first = self._first or self._fetch(url), ""
        if is_master(text):
            return self._master(text, url)
        text, listed = self._parsed(text, url)
        if self._served is None and not all(self._may_open(one.url) for one in listed.segments):
            raise self._forbidden()
        return self._serve(text, listed, url)

    def _master(self, text: str, url: str) -> str:
        chosen = choose_variant(variants(text), self._geometry)
        if chosen is None:
            raise SourceUnusable(f"{self._name} has no video", hint="see [source]")
        place = self._place(url)
        sound = choose_sound(text, chosen)
        self._sound = joined(place, sound) if sound else ""
        text = master_of(text, chosen, place)
        self._playlists.update(row for row in text.splitlines() if row and row[0] != "#")
        return text

    def _parsed(self, text: str, url: str) -> tuple[str, MediaPlaylist]:
        """Return a media playlist, by its parts if it has some, and what it lists."""
        text = by_parts(text, joins=self._served is None) if part_length(text) else text
        return text, parse_media(text, self._place(url))

    def _serve(self, text: str, listed: MediaPlaylist, url: str) -> str:
        """Return a media playlist as FFmpeg gets it, and remember what it lists."""
        length = part_length(text)
        text = with_whole_addresses(text, self._place(url))
        if not listed.has_ended:
            self._sequence = self._continued(listed)
            text = for_reading(text, self._sequence)
            lengths = [segment.duration for segment in listed.segments]
            longest = length or max(lengths, default=listed.target_duration)
            self.burst = max(self.burst, longest)
        elif self._served is not None:
            text = for_reading(text, self._continued(listed))
        self._served, self._served_text = listed, text
        self._asks_again = False
        self._next_at = self._now() + self._timer.changed(self._duration(listed))
        return text

    def _continued(self, listed: MediaPlaylist) -> int:
        """Return the number of the first segment, counted on from what was served before.

        By the last that both lists have in common: some servers count from the start again, some
        not at all, and parts become one segment after a while.
        """
        before = self._served
        if before is None:
            return listed.sequence
        places = {segment: place for place, segment in enumerate(before.segments)}
        for place, segment in reversed(list(enumerate(listed.segments))):
            if segment in places:
                return self._sequence + places[segment] - place
        return self._sequence + len(before.segments)

    def _next_live(self, url: str) -> str:
        """Return the next playlist with a new segment, or the last while FFmpeg has not read it."""
        assert self._served is not None
        last = self._served.segments[-1] if self._served.segments else None
        has_read = last is None or (last.url, last.start) == self._last_opened
        if not has_read and not self._asks_again:
            self._asks_again = True
            return self._served_text
        while not self._cancelled.wait(max(0.0, self._next_at - self._now())):
            try:
                text = self._fetch(url)
            except (av.error.FFmpegError, OSError, ValueError, SourceError):
                text = ""  # away for a moment: whoever waits for pictures sets the limit
            if (news := self._news_in(text, url)) is not None:
                return self._serve(*news, url)
            self._next_at = self._now() + self._timer.unchanged(self._duration(self._served))
        return ""  # an exception would be printed by PyAV; FFmpeg makes an error of this

    def _news_in(self, text: str, url: str) -> tuple[str, MediaPlaylist] | None:
        """Return a playlist with what it lists; None where that is nothing new."""
        assert self._served is not None
        if not is_playlist(text):
            return None
        text, listed = self._parsed(text, url)
        is_news = listed.has_ended or (
            bool(listed.segments)
            and (
                listed.segments[-1] not in self._served.segments
                or listed.sequence + len(listed.segments)
                > self._served.sequence + len(self._served.segments)
            )
        )
        return (text, listed) if is_news else None

    def _duration(self, listed: MediaPlaylist) -> float:
        return listed.segments[-1].duration if listed.segments else listed.target_duration

    def _segment(self, url: str, options: dict[str, str]) -> ByteSource:
        self._asks_again = False
        self._last_opened = (plain_url(url), int(options.get("offset", "0")))
        if not self._may_open(url):
            return Nothing()
        own = {name: text for name, text in options.items() if name not in OPTIONS}
        for attempt in range(RETRIES):
            try:
                return open_file(url, self._request_options(url) | own, self._timeout)
            except (av.error.FFmpegError, OSError):
                if attempt + 1 < RETRIES and self._cancelled.wait(SHORTEST_POLL):
                    break
        return Nothing()

    def _may_open(self, url: str) -> bool:
        return may_be_opened(url, from_web=self._from_web)

    def _forbidden(self) -> SourceUnusable:
        text = f"{self._name}: its playlist names something that is not on the web"
        return SourceUnusable(text, hint="only a playlist on this machine may name its files")

    def _fetch(self, url: str) -> str:
        if url != self._main and not self._may_open(url):
            raise self._forbidden()
        self._from_web = self._from_web or is_from_web(url)
        if self._has_credentials and not may_share(url, place := self._place(url)):
            url = place  # else FFmpeg, which follows redirections, sends all options there
        return fetch_text(url, self._name, self._request_options(url), self._timeout)

    def _place(self, url: str) -> str:
        """Return the address that those in a playlist are relative to."""
        if url not in self._places:
            self._places[url] = find_place(url, self._request_options(url))
        return self._places[url].url

    def _request_options(self, url: str) -> dict[str, str]:
        """Return the user's options, and the server's cookies unless a user gave some."""
        cookies = [
            place.cookies
            for place in self._places.values()
            if place.cookies and may_share(place.url, url)
        ]
        server = {"cookies": cookies[-1]} if cookies else {}
        return server | options_for(url, self._options, self._main)


class _Text:
    """A text as a file."""

    def __init__(self, text: str) -> None:
        self._rest = text.encode()

    def read(self, size: int, /) -> bytes:
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def close(self) -> None:
        self._rest = b""


def is_hls(url: str, demuxer: str) -> bool:
    """Whether a URL is read as HLS: by its demuxer, else by its path's ending."""
    if demuxer:
        return demuxer == DEMUXER
    path = url if local_path(url) is not None else url.partition("?")[0].partition("#")[0]
    return path.lower().endswith(".m3u8")
