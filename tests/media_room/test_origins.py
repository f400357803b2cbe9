import pytest

from relayd.media.origins import may_share, options_for, scheme_of


@pytest.mark.parametrize(
    ("owner", "url", "is_shared"),
    [
        ("https://a/list", "https://a/segment", True),
        ("https://a/list", "https://A:8443/segment", True),
        ("http://a/list", "https://a/segment", True),
        ("https://a/list", "http://a/segment", False),
        ("https://a/list", "https://b/segment", False),
        ("https://a.b/list", "https://b/segment", False),
        ("https://me:word@a/list", "https://a@b/segment", False),
        ("https://a/list", "https://a\\@b/segment", False),
        ("https://a/list", "crypto+https://a/segment", True),
        ("https://a/list", "crypto+https://b/segment", False),
        ("https://a/list", "http://[a/segment", False),
        ("/clips/list.m3u8", "https://b/segment", True),
    ],
)
def test_credentials_stay_with_their_host_and_its_protection(
    owner: str, url: str, *, is_shared: bool
) -> None:
    assert may_share(owner, url) is is_shared


def test_another_host_gets_what_is_no_credential() -> None:
    options = {
        "headers": "X-Place: here\r\nauthorization : Basic x\r\nCOOKIE: a=b\r\n",
        "cookies": "user=me; path=/\nshared=1; domain=b",
        "user_agent": "mine",
    }
    assert options_for("https://a/x", options, "https://a/list") == options
    assert options_for("https://b/x", options, "https://a/list") == {
        "headers": "X-Place: here\r\n",
        "cookies": "shared=1; domain=b",
        "user_agent": "mine",
    }
    assert options_for("https://b/x", {"cookies": "a=b"}, "https://a/list") == {}


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("HTTP://a/b", "http"),
        ("crypto:/a/b", ""),
        ("crypto+FILE:///a", "file"),
        ("crypto-show/a.ts", ""),
        ("subfile,,start,0,end,9,,:/a", "subfile"),
        ("mine,old/a.ts", ""),
        ("concat:/a|/b", "concat"),
        ("/a:b", ""),
    ],
)
def test_the_protocol_is_read_as_ffmpeg_does(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme
