"""Looks at a file or device that FFmpeg could not read; opens nothing but regular files."""

import os
import pwd
import stat
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from relayd.media.causes import Facts
from relayd.media.contents import START, boxes_of
from relayd.media.symptoms import Symptom
from relayd.source.addresses import ffmpeg_url, is_local, path_of

_MOST_NAMES: Final = 5000
"""Names in a folder that are compared with a missing one."""
_MOST_ALIKE: Final = 3
_ALIKE: Final = 0.75
"""How alike two names must be, of 1."""
_VIDEO_ENDINGS: Final = {
    ".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".m4v", ".mpg", ".gif", ".jpg", ".jpeg", ".png",
}  # fmt: skip


def look_at_path(symptom: str, url: str) -> Facts:
    """Return what can be found out about a path, or a file: URL, that failed so."""
    try:
        url = ffmpeg_url(url)
        if not is_local(url):  # standard input
            return Facts()
        path = Path(path_of(url))
        match symptom:
            case Symptom.MISSING:
                return Facts(alike=_alike(path))
            case Symptom.FOLDER:
                names = sorted(
                    one for one in path.iterdir() if one.suffix.lower() in _VIDEO_ENDINGS
                )
                return Facts(alike=tuple(str(one) for one in names[:1]))
            case Symptom.FORBIDDEN:
                return _look_at_rights(path)
        return _look_into(path)
    except (OSError, ValueError):
        return Facts()


def _look_into(path: Path) -> Facts:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        is_null = str(path) == os.devnull
        return Facts(is_device=stat.S_ISCHR(mode), start=b"" if is_null else None)
    with path.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        size = file.seek(0, os.SEEK_END)
        return Facts(start=read(0, START), boxes=boxes_of(read, size))


def _look_at_rights(path: Path) -> Facts:
    blocked = next(
        (str(one) for one in reversed(path.absolute().parents) if not os.access(one, os.X_OK)), ""
    )
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without a name, as in containers
        user = str(os.geteuid())
    return Facts(blocked=blocked, user=user)


def _alike(path: Path) -> tuple[str, ...]:
    """Return files whose names are like the one that is missing, or like its missing folder's."""
    wanted = path
    while not wanted.parent.exists():
        wanted = wanted.parent
    names = []
    with os.scandir(wanted.parent) as found:
        names = [entry.name for entry, _ in zip(found, range(_MOST_NAMES), strict=False)]
    near = [name for name in names if name.lower() == wanted.name.lower()]
    near += get_close_matches(wanted.name, names, _MOST_ALIKE, _ALIKE)
    stems = {Path(name).stem: name for name in names}  # the right name with another ending
    near += [stems[stem] for stem in get_close_matches(wanted.stem, stems, _MOST_ALIKE, _ALIKE)]
    near = list(dict.fromkeys(near))
    is_folder = wanted != path
    rest = path.relative_to(wanted) if is_folder else Path()
    places = [wanted.with_name(name) / rest for name in near]
    return tuple(str(one) for one in places if not is_folder or one.exists())[:_MOST_ALIKE]
