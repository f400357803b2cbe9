"""Opens a source: tries the ways that its plan names, and says what was found."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event
from typing import Final

from relayd.config.settings import SourceSettings
from relayd.errors import SourceUnusable
from relayd.media.decode import VideoInput
from relayd.media.frames import FitMode, Geometry
from relayd.media.hls import HlsFiles, is_hls
from relayd.source.kinds import InputPlan, SourceKind, comes_in_bursts, plan_input

HTTP: Final = {"http", "https"}
OPEN_TIMEOUT: Final = 5.0
"""s for opening, and again for finding the streams."""


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source and its kind, as far as opening it has shown."""

    video: VideoInput
    kind: SourceKind


class SourceOpener:
    """Opens the source of some settings, again and again if need be."""

    def __init__(
        self, settings: SourceSettings, geometry: Geometry, fit: FitMode, cancelled: Event
    ) -> None:
        """`cancelled` ends the calls that can be ended early."""
        self._settings, self._geometry, self._fit = settings, geometry, fit
        self._cancelled = cancelled

    def open(self) -> OpenedSource:
        """Open the source; the caller closes it. Raises SourceError when that fails."""
        settings = self._settings
        plan = plan_input(
            settings.url.reveal(), settings.format, settings.options, settings.stall_timeout
        )
        video = self._try_options(plan)
        kind = plan.kind
        if kind is SourceKind.LIVE and settings.url.scheme in HTTP and video.finite:
            kind = SourceKind.FILE
        elif comes_in_bursts(video.demuxer, settings.url.scheme) and not video.finite:
            kind = SourceKind.BURSTS
        return OpenedSource(video, kind)

    def _try_options(self, plan: InputPlan) -> VideoInput:
        last_try = len(plan.options) - 1
        for number, options in enumerate(plan.options):
            try:
                return VideoInput.open(
                    plan.url,
                    name=str(self._settings.url),
                    geometry=self._geometry,
                    fit=self._fit,
                    format=plan.demuxer,
                    options=options,
                    low_delay=plan.kind.live,
                    open_timeout=OPEN_TIMEOUT,
                    read_timeout=self._settings.stall_timeout,
                    cancelled=self._cancelled,
                    files=self._hls_files(plan, options),
                )
            except SourceUnusable:
                if number == last_try or self._cancelled.is_set():
                    raise
        raise AssertionError("a plan has at least one set of options")

    def _hls_files(self, plan: InputPlan, options: Mapping[str, str]) -> HlsFiles | None:
        """Return what fetches the files of an HLS stream; None for any other source."""
        if not is_hls(plan.url, plan.demuxer):
            return None
        return HlsFiles(
            plan.url,
            str(self._settings.url),
            options,
            self._geometry,
            timeout=OPEN_TIMEOUT,
            cancelled=self._cancelled,
        )
