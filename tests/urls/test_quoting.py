"""Messages quote a user's names and values, but no pasted key."""

from pathlib import Path

import pytest

from relayd import logs
from relayd.config.loading import exposed, load
from relayd.errors import ConfigError
from relayd.urls.concealed import HIDDEN
from relayd.urls.quoting import ELLIPSIS, plain_name, plain_names_in, quoted, quoted_place

KEYS = ["sk-9fK3SECRET77x", "live_123456_AbCdEfGh", "9f8e7d6c5b4a39211", "eyJhbGciOi.JIUzI1.NiJ9xx"]


@pytest.mark.parametrize(
    "name", ["fps", "api_key", "apiKey", "API-KEY", "Video", "rtsp_transport2", "0"]
)
def test_names_are_quoted(name: str) -> None:
    assert plain_name(name) == name
    assert plain_names_in(f"Duplicate inline table key {name!r}") == (
        f"Duplicate inline table key {name!r}"
    )


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_not_quoted(key: str) -> None:
    assert plain_name(key) == ELLIPSIS
    assert quoted(key) == quoted_place(key) == HIDDEN
    assert key not in plain_names_in(f"Duplicate inline table key {key!r}")


@pytest.mark.parametrize(
    "value",
    ["fast", "croppp", "20 fps", "2.5 seconds", "192.168.100.100", "0.0.0.0:8642", "1,2:3,4"],
)
def test_values_are_quoted(value: str) -> None:
    assert quoted(value) == repr(value)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("out/x.avi", "'out/x.avi'"),
        ("x.avi", "'x.avi'"),
        ("out", "'out'"),
        ("ftp://me:pw@h/x.png", "'ftp://h/x.png'"),
        ("abcd-efgh-ijkl-mnop", HIDDEN),
        ("live_123?bandwidthtest=true", HIDDEN),
    ],
)
def test_a_stream_key_without_its_url_is_no_place(place: str, shown: str) -> None:
    assert quoted_place(place) == shown


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "text",
    [
        '[akool]\n"{}" = 1',
        '"{}" = 1',
        '["{}"]',
        "[akool]\napi_key = {}",
        "[akool]\napi_key {}",
        'x = {{ "{0}" = 1, "{0}" = 2 }}',
        '["{0}"]\n["{0}"]',
        '[akool]\nbase_url = "{}"',
        '[face]\nimage = "{0}"\nlandmarks = "{0}"',
        '[privacy]\nfallback = "{}"',
        '[control]\nhttp = "{0}"\nallowed_hosts = ["{0}_"]\npublic = ["{0}"]\ntoken = "a{0}+"',
        '[[output]]\nkind = "stream"\nurl = "{}"',
        '[[output]]\nkind = "{}"',
        '[rtc]\nkind = "{0}"\npublish_url = "{0}"\nplay_url = "http://h/{{{0}}}"',
        '[source]\nurl = ""\noptions = "{}"',
        'akool = "{}"',
    ],
)
def test_a_key_in_the_wrong_place_of_the_file_is_not_repeated(
    tmp_path: Path, text: str, key: str
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text.format(key) + "\n[video]\nfps = 0\n")
    with pytest.raises(ConfigError) as caught:
        load(file, (), {})
    assert key not in logs.redact("\n".join(caught.value.faults))


@pytest.mark.parametrize("key", KEYS[:3])
def test_a_key_in_the_wrong_variable_or_override_is_not_repeated(key: str) -> None:
    environment = {f"RELAYD_AKOOL__{key}": "1", "RELAYD_OUTPUT__0": key, "RELAYD_VIDEO__FPS": key}
    overrides = [
        f"akool.{key}=1",
        f"{key}=1",
        f"{key}.x=1",
        f"output.{key}=1",
        key,
        f"video.fps={key}",
    ]
    with pytest.raises(ConfigError) as caught:
        load(None, overrides, environment)
    text = "\n".join(caught.value.faults).lower()
    assert len(caught.value.faults) >= 5
    assert key.lower() not in text


@pytest.mark.parametrize(
    "given",
    [
        "Akool.Api_Key=sesame",
        "AKOOL.API_KEY=sesame",
        'akool."api_key"=sesame',
        "'akool'.api_key=sesame",
        "akool . api_key=sesame",
        "akool.api-key=sesame",
        "akool.apikey=sesame",
        "api_key=sesame",
        'akool={ "api_key" = "sesame" }',
        "akool.api_key={a=1}",
        "control={token='sesame'}",
        "Control.Token=sesame",
        "client-secret=sesame",
        "source.options.password=sesame",
        'source.options={passphrase="sesame"}',
    ],
)
def test_set_refuses_a_secret_however_its_key_is_spelt(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, [given], {})
    (fault,) = caught.value.faults
    assert ": a command line can be read by every user of this machine; " in logs.redact(fault)
    assert "sesame" not in fault


@pytest.mark.parametrize(
    "given", ["akool.api_key=", 'control.token=""', "source.options={rtsp_transport='tcp'}"]
)
def test_set_accepts_what_holds_no_secret(given: str) -> None:
    load(None, [given], {})


def test_an_override_with_a_password_in_its_url_is_named() -> None:
    given = [
        "source.url=rtsp://me:hunter22@h/x",
        "video.fps=20",
        "face.image=https://h/anna.png",
        'output=[{kind="stream",url="rtmp://h/live/kkkk-1111"}]',
    ]
    assert exposed(given) == ["source.url", "output"]
