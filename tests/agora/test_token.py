import base64
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.rtc.agora.token import TokenFacts, read_token

PUBLISHED = (
    "007eJxTYFj/uGvaue3C3/VlOLdFmM5UuffmzHGhszbnTSqs3or94HNRYEhNNElJM0oxMkg1MTYxMklMMkm0MDCySDW0"
    "sDBOMjRP297vnyHAx8Bw6YAZIyMDIwMLAyMDiM8EJpnBJAuYFGMwMjAyNTAzNDMwNrI0tTQ0MIy3MDIyYWQwBADtwSJM"
)
"""The token of the create answer in the service's API text."""
PUBLISHED_CHANNEL = "20250616032959101_8224"


def token(life: int, *lives: int, service: int = 1) -> str:
    """Make a token of generation 007, signed by nobody."""

    def text(value: bytes) -> bytes:
        return struct.pack("<H", len(value)) + value

    body = (
        text(b"signature")
        + text(b"app")
        + struct.pack("<IIIHHH", 1000, life, 7, 1, service, len(lives))
    )
    for number, each in enumerate(lives, 1):
        body += struct.pack("<HI", number, each)
    if service == 1:
        body += text(b"channel") + text(b"3")
    return "007" + base64.b64encode(zlib.compress(body)).decode()


def test_the_token_of_the_services_own_example_names_project_channel_user_and_end() -> None:
    facts = read_token(PUBLISHED)
    assert facts == TokenFacts(
        app_id="ea4df2d20e43424ab4a8028e1883b17f",
        lifetime=3600,
        channel=PUBLISHED_CHANNEL,
        user_id="1",
    )


def test_the_shortest_lifetime_of_its_privileges_is_the_tokens() -> None:
    facts = read_token(token(3600, 3600, 600, 0))
    assert facts is not None
    assert facts.lifetime == 600


def test_a_token_for_another_service_still_names_its_project() -> None:
    assert read_token(token(60, service=2)) == TokenFacts("app", 60)


@pytest.mark.parametrize(
    "text",
    ["", "006abc", "007", "007!!!", PUBLISHED[:-20], "007" + base64.b64encode(b"x").decode()],
)
def test_an_invalid_token_is_none(text: str) -> None:
    assert read_token(text) is None


@given(st.binary(max_size=200))
def test_no_token_raises(body: bytes) -> None:
    read_token("007" + base64.b64encode(zlib.compress(body)).decode())


def test_a_token_that_would_unpack_to_gigabytes_is_not_unpacked() -> None:
    bomb = "007" + base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    assert read_token(bomb) is None
