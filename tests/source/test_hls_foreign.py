"""Playlists come from strangers: what they may lead to, and what they may not cost."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Final

import pytest

from relayd.errors import SourceError
from relayd.media.decode import VideoInput
from relayd.media.fetch import LARGEST_PLAYLIST
from relayd.media.frames import Geometry
from relayd.media.hls import HlsFiles
from tests.support.hls_server import coded
from tests.support.static_server import StaticServer

VGA: Final = Geometry(640, 480)
SEGMENT: Final = coded(0, 20, (320, 240), 10.0)


def listing(segment: str, *rows: str) -> str:
    return "\n".join(
        ["#EXTM3U", "#EXT-X-TARGETDURATION:1", *rows, "#EXTINF:1,", segment, "#EXT-X-ENDLIST", ""]
    )


def master(variant: str) -> str:
    return f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=640x480\n{variant}\n"


def pictures(url: str, options: dict[str, str] | None = None) -> int:
    """Return how many pictures are behind a playlist."""
    cancelled = Event()
    files = HlsFiles(url, "it", options or {}, VGA, timeout=5, cancelled=cancelled)
    source = VideoInput.open(
        url, name="it", geometry=VGA, options=options or {}, files=files, cancelled=cancelled
    )
    try:
        return sum(1 for _ in source.pictures())
    finally:
        source.close()


@pytest.fixture
def site() -> Iterator[StaticServer]:
    with StaticServer({"/segment.ts": SEGMENT}) as server:
        yield server


@pytest.fixture
def other() -> Iterator[StaticServer]:
    with StaticServer({"/segment.ts": SEGMENT}) as server:
        yield server


@pytest.mark.parametrize("way", ["{}", "file://{}", "file:{}", "concat:{}", "crypto:{}"])
def test_a_playlist_from_the_web_reads_no_file_of_this_machine(
    site: StaticServer, tmp_path: Path, way: str
) -> None:
    (tmp_path / "private.ts").write_bytes(SEGMENT)
    (tmp_path / "list.m3u8").write_text(listing("private.ts"))
    private, inner = (way.format(tmp_path / name) for name in ("private.ts", "list.m3u8"))
    site.files |= {
        "/one.m3u8": listing(private),
        "/all.m3u8": master(inner),
        "/key.m3u8": listing("segment.ts", f'#EXT-X-KEY:METHOD=AES-128,URI="{private}"'),
        "/map.m3u8": listing("segment.ts", f'#EXT-X-MAP:URI="{private}"'),
    }
    for path in ("/one.m3u8", "/all.m3u8", "/key.m3u8", "/map.m3u8"):
        with pytest.raises(SourceError):
            pictures(site.url(path))


def test_nor_by_a_detour_over_a_playlist_of_this_machine(
    site: StaticServer, tmp_path: Path
) -> None:
    (tmp_path / "private.ts").write_bytes(SEGMENT)
    site.files["/list.m3u8"] = listing(f"file://{tmp_path}/private.ts")
    (tmp_path / "all.m3u8").write_text(master(site.url("/list.m3u8")))
    with pytest.raises(SourceError, match="not on the web"):
        pictures(str(tmp_path / "all.m3u8"))


def test_a_playlist_of_this_machine_reads_its_files_and_the_web(
    site: StaticServer, tmp_path: Path
) -> None:
    (tmp_path / "one.ts").write_bytes(SEGMENT)
    for segment in ("one.ts", f"file://{tmp_path}/one.ts", site.url("/segment.ts")):
        (tmp_path / "list.m3u8").write_text(listing(segment))
        assert pictures(str(tmp_path / "list.m3u8")) > 10


def test_a_playlist_from_the_web_opens_no_other_protocol(site: StaticServer) -> None:
    for address in (site.url("/").replace("http", "tcp"), "unix:/run/it", "udp://127.0.0.1:1"):
        site.files["/all.m3u8"] = master(address)
        # FFmpeg 9 refuses such a variant before it asks for it.
        with pytest.raises(SourceError, match=r"not on the web|not a video that can be read"):
            pictures(site.url("/all.m3u8"))
    assert {path for path, _ in site.asked} == {"/all.m3u8"}


def credentials(server: StaticServer) -> set[str]:
    """Return the names and values that a server should keep to itself."""
    return {
        text
        for _, headers in server.asked
        for name, text in headers.items()
        if name in ("Authorization", "Cookie", "X-Place")
    }


@pytest.mark.parametrize("way", ["segment", "variant", "redirect", "key"])
def test_another_server_gets_no_user_no_cookie_and_no_login(
    site: StaticServer, other: StaticServer, way: str
) -> None:
    there = "localhost"  # a name of its own, as another site has
    other.files |= {"/list.m3u8": listing("segment.ts"), "/key": b"0" * 16}
    if way != "redirect":  # a server that redirects may tell the other one what it likes
        site.headers["Set-Cookie"] = "session=1; path=/"
    site.files["/it.m3u8"] = {
        "segment": listing(other.url("/segment.ts", there)),
        "variant": master(other.url("/list.m3u8", there)),
        "redirect": f"302 {other.url('/list.m3u8', there)}",
        "key": listing(
            other.url("/segment.ts", there),
            f'#EXT-X-KEY:METHOD=AES-128,URI="{other.url("/key", there)}"',
        ),
    }[way]
    secrets = {
        "headers": "Authorization: Bearer me\r\nX-Place: here\r\n",
        "cookies": "user=me; path=/",
    }
    for url, options in (
        (site.url("/it.m3u8", login="me:word@"), {}),
        (site.url("/it.m3u8"), secrets),
        (site.url("/it.m3u8"), {"headers": "X-Place: here\r\n"}),
    ):
        try:
            assert pictures(url, options) > 10
        except SourceError:
            assert way == "key"  # not the right one
    assert credentials(other) == {"here"}
    assert "Bearer me" in credentials(site)


@pytest.mark.parametrize(
    "text",
    [
        master("list.m3u8").replace("640x480", f"{'9' * 5000}x480"),
        master("list.m3u8").replace("BANDWIDTH=1", "BANDWIDTH=²"),
        "#EXTM3U\n#EXT-X-STREAM-INF:" + "A" * 1_000_000 + "\nlist.m3u8\n",
        "".join(f"{master('list.m3u8')}\n" for _ in range(20_000)),
    ],
)
def test_a_strange_master_playlist_is_read_and_soon(site: StaticServer, text: str) -> None:
    site.files |= {"/all.m3u8": text, "/list.m3u8": listing("segment.ts")}
    began = time.thread_time()
    assert pictures(site.url("/all.m3u8")) > 10
    assert time.thread_time() - began < 20  # at each letter it would be hours


def test_an_address_that_is_none_is_refused(site: StaticServer) -> None:
    site.files["/it.m3u8"] = listing("http://[it/segment.ts")
    with pytest.raises(SourceError, match="names something"):
        pictures(site.url("/it.m3u8"))


def test_a_playlist_without_an_end_is_refused(site: StaticServer) -> None:
    site.files["/it.m3u8"] = listing("segment.ts", "# " + "x" * LARGEST_PLAYLIST)
    with pytest.raises(SourceError, match="larger than 4 MiB"):
        pictures(site.url("/it.m3u8"))
