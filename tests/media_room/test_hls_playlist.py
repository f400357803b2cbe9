import itertools

import pytest

from relayd.media.frames import Geometry
from relayd.media.hls import LONGEST_POLL, ReloadTimer, is_hls
from relayd.media.hls_playlist import (
    by_parts,
    choose_variant,
    for_reading,
    is_master,
    is_playlist,
    master_of,
    parse_media,
    part_length,
    variants,
)

VGA = Geometry(640, 480)
LIVE = """#EXTM3U
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:17
#EXT-X-MAP:URI="init.mp4",BYTERANGE="800@0"
#EXTINF:4.000,
#EXT-X-BYTERANGE:1000@800
all.mp4
#EXTINF:3.5,a title
#EXT-X-BYTERANGE:500
all.mp4
#EXT-X-DISCONTINUITY
#EXTINF:4,
https://elsewhere/next.ts
"""


def master(*rows: str) -> str:
    """Return a master playlist of (attributes) rows; the address is the row's number."""
    listed = [
        f"#EXT-X-STREAM-INF:{attributes}\n{number}.m3u8" for number, attributes in enumerate(rows)
    ]
    return "\n".join(["#EXTM3U", *listed, ""])


def chosen(*rows: str, target: Geometry = VGA) -> str | None:
    variant = choose_variant(variants(master(*rows)), target)
    return variant.uri.removesuffix(".m3u8") if variant else None


def sizes(*names: str) -> list[str]:
    return [f"BANDWIDTH=1,RESOLUTION={name}" for name in names]


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (["320x180", "640x360", "1280x720"], "1280x720"),
        (["1920x1080", "1280x720", "640x360"], "1280x720"),
        (["640x480", "1280x960", "1920x1440"], "640x480"),
        (["1280x960", "1920x1440"], "1280x960"),
        (["640x360", "1920x1080"], "640x360"),
        (["320x180", "480x270"], "480x270"),
        (["3840x2160", "1920x1080"], "1920x1080"),
        (["1080x1920", "720x1280"], "720x1280"),
    ],
)
def test_the_smallest_that_fills_the_relay_is_chosen_up_to_twice_its_size(
    offered: list[str], expected: str
) -> None:
    assert chosen(*sizes(*offered)) == str(offered.index(expected))


def test_of_one_size_normal_range_then_h264_then_the_bit_rate_decides() -> None:
    size = "RESOLUTION=1280x720"
    assert chosen(f"BANDWIDTH=9,{size},VIDEO-RANGE=PQ", f"BANDWIDTH=1,{size}") == "1"
    assert chosen(f'BANDWIDTH=9,{size},CODECS="hvc1.1"', f'BANDWIDTH=1,{size},CODECS="avc1"') == "1"
    assert chosen(f"BANDWIDTH=1,{size}", f"BANDWIDTH=9,{size}") == "1"


def test_without_sizes_the_highest_bit_rate_with_video_is_chosen() -> None:
    rows = [
        'BANDWIDTH=5,CODECS="avc1.4d,mp4a.40.2"',
        'BANDWIDTH=9,CODECS="mp4a.40.2"',
        "BANDWIDTH=7",
    ]
    assert chosen(*rows) == "2"
    assert chosen('BANDWIDTH=9,CODECS="mp4a.40.2"') is None


def test_the_master_that_is_read_names_one_variant_and_no_rendition() -> None:
    text = master(*sizes("320x240", "1280x960")) + (
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="sound.m3u8"\n'
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="frames.m3u8"\n'
        '#EXT-X-SESSION-KEY:METHOD=AES-128,URI="key"\n'
    )
    choice = choose_variant(variants(text), VGA)
    assert choice is not None
    read = master_of(text, choice, "http://host/a/master.m3u8?id=1")
    assert is_master(read)
    assert [row for row in read.splitlines() if not row.startswith("#")] == ["http://host/a/1.m3u8"]
    assert "sound" not in read
    assert "frames" not in read
    assert 'URI="http://host/a/key"' in read


def test_a_media_playlist_lists_its_segments() -> None:
    listed = parse_media(LIVE, "http://host/a/live.m3u8")
    assert (listed.sequence, listed.target_duration, listed.has_ended) == (17, 4.0, False)
    assert [(one.url, one.start, one.duration) for one in listed.segments] == [
        ("http://host/a/all.mp4", 800, 4.0),
        ("http://host/a/all.mp4", 1800, 3.5),
        ("https://elsewhere/next.ts", 0, 4.0),
    ]
    assert parse_media(LIVE + "#EXT-X-ENDLIST\n", "x").has_ended


@pytest.mark.parametrize("text", ["", "#EXTM3U\n", "<html>#EXTM3U", "#EXTM3U\n#EXTINF:x,\n\n\0"])
def test_nonsense_is_no_playlist_and_no_crash(text: str) -> None:
    assert not is_playlist(text)
    parse_media(text, "http://host/")
    parse_media("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:x\n#EXTINF:-1,\n#EXT-X-BYTERANGE:y@z\na", "b")
    assert variants("#EXT-X-STREAM-INF:\n") == []


def test_what_is_read_counts_as_told_and_never_lets_ffmpeg_wait() -> None:
    read = parse_media(for_reading(LIVE, 500), "http://host/a/live.m3u8")
    assert read.sequence == 500
    assert {segment.duration for segment in read.segments} == {0.001}
    assert [one.start for one in read.segments] == [800, 1800, 0]
    assert "#EXT-X-DISCONTINUITY" in for_reading(LIVE, 500)


@pytest.mark.parametrize("duration", [1.0, 2.0, 4.0, 6.0, 10.0])
@pytest.mark.parametrize("phase", [0.05, 0.4, 0.9])
def test_requests_find_the_moment_of_change_and_stay_few(duration: float, phase: float) -> None:
    timer = ReloadTimer()
    now, seen, requests = phase * duration, 0, 0
    now += timer.changed(duration)
    delays = []
    while seen < 20:
        requests += 1
        if int(now / duration) > seen:
            seen = int(now / duration)
            delays.append(now - seen * duration)
            now += timer.changed(duration)
        else:
            now += timer.unchanged(duration)
    assert max(delays[1:]) <= LONGEST_POLL
    assert requests < 20 * 3 + 2 * duration / 0.2
    assert all(earlier >= 0 for earlier, _ in itertools.pairwise(delays))


def test_hls_is_known_by_its_demuxer_or_its_ending() -> None:
    assert is_hls("http://host/live.M3U8?token=a/b.ts#x", "")
    assert is_hls("/srv/a#b/live.m3u8", "")
    assert is_hls("http://host/live", "hls")
    assert not is_hls("http://host/live.m3u8", "mpegts")
    assert not is_hls("http://host/live.ts?list=a.m3u8", "")


PARTS = """#EXTM3U
#EXT-X-PART-INF:PART-TARGET=1.0
#EXT-X-MEDIA-SEQUENCE:7
#EXTINF:2,
a.mp4
#EXT-X-PART:DURATION=1,URI="b.1.mp4",INDEPENDENT=YES
#EXT-X-PART:DURATION=1,URI="b.2.mp4"
#EXTINF:2,
b.mp4
#EXT-X-PART:DURATION=1,URI="c.mp4",BYTERANGE="10@0"
#EXT-X-PART:DURATION=1,URI="gone.mp4",GAP=YES
#EXT-X-PART:DURATION=0.5,URI="c.mp4",BYTERANGE="20@10"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="d.mp4"
"""


def test_parts_stand_for_their_segment_as_soon_as_they_are_there() -> None:
    listed = parse_media(by_parts(PARTS, joins=False), "")
    assert [(one.url, one.start) for one in listed.segments] == [
        ("a.mp4", 0), ("b.1.mp4", 0), ("b.2.mp4", 0), ("c.mp4", 0), ("c.mp4", 10)
    ]  # fmt: skip
    assert part_length(PARTS) == 1.0
    assert part_length(LIVE) == 0.0


def test_who_joins_begins_with_the_first_part_of_the_newest_segment() -> None:
    listed = parse_media(by_parts(PARTS, joins=True), "")
    assert [(one.url, one.start) for one in listed.segments][-2:] == [("b.2.mp4", 0), ("c.mp4", 0)]


@pytest.mark.parametrize("text", ["1e9", "inf", "nan", "-4", "4" * 400, "", "x"])
def test_no_duration_keeps_a_lost_source_for_more_than_a_minute(text: str) -> None:
    listed = parse_media(f"#EXTM3U\n#EXT-X-TARGETDURATION:{text}\n#EXTINF:{text},\na.ts\n", "")
    assert 0 <= listed.target_duration <= 60
    assert 0 <= listed.segments[0].duration <= 60
    assert 0 <= part_length(f"#EXT-X-PART-INF:PART-TARGET={text}\n") <= 60


@pytest.mark.parametrize("text", ["-1", "9" * 30, "1e400", "nan", "x"])
def test_any_number_of_a_first_segment_is_read(text: str) -> None:
    assert parse_media(f"#EXT-X-MEDIA-SEQUENCE:{text}\n#EXTINF:1,\na.ts\n", "").sequence == 0
