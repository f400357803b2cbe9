"""Lines from a process that may send anything, or nothing."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.process.lines import LineReader, LineTooLong


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_lines_are_complete_however_they_were_split(pipe: tuple[int, int]) -> None:
    reader = LineReader(pipe[0], largest=10)
    os.write(pipe[1], b"one\ntw")
    assert reader.read(1.0) == [b"one"]
    assert reader.read(0.0) == []
    os.write(pipe[1], b"o\n\nthree\n")
    assert reader.read(1.0) == [b"two", b"", b"three"]
    assert not reader.at_end


@pytest.mark.parametrize("text", [b"12345678901\n", b"12345678901"])
def test_a_line_that_is_too_long_is_refused_even_before_its_end(
    pipe: tuple[int, int], text: bytes
) -> None:
    reader = LineReader(pipe[0], largest=10)
    os.write(pipe[1], text)
    with pytest.raises(LineTooLong, match="more than 10 bytes"):
        reader.read(1.0)


def test_the_end_is_detected_and_half_a_line_is_dropped() -> None:
    readable, into = os.pipe()
    try:
        reader = LineReader(readable, largest=10)
        os.write(into, b"whole\nhalf")
        os.close(into)
        assert reader.read(1.0) == [b"whole"]
        assert reader.read(1.0) == []
        assert reader.at_end
        assert reader.read(1.0) == []
    finally:
        os.close(readable)


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_whatever_is_sent_no_line_exceeds_the_limit(chunks: list[bytes]) -> None:
    readable, into = os.pipe()
    got: list[bytes] = []
    reader = LineReader(readable, largest=40)
    try:
        for chunk in chunks:
            os.write(into, chunk)
            got += reader.read(0.0)
    except LineTooLong:
        longest = max(map(len, b"".join(chunks).split(b"\n")))
        assert longest > 40
    else:
        assert got == b"".join(chunks).split(b"\n")[:-1]
    finally:
        os.close(readable)
        os.close(into)
