"""Any content of file, environment and `--set` gives settings, or named errors, one line each."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from relayd.commands.check import PARTS, check_part
from relayd.config.loading import load
from relayd.config.paths import control_socket, state_directory
from relayd.config.requirements import require_runnable
from relayd.config.settings import CameraSettings, Settings, StreamSettings
from relayd.config.variables import ignored
from relayd.errors import ConfigError
from relayd.http.proxies import proxy_for
from relayd.http.trust import client_context
from tests.support.fuzz import TIMEOUT, fuzz

SECTIONS = list(Settings.model_fields)
KEYS = sorted(
    {
        key
        for section in Settings.model_fields.values()
        for key in getattr(section.annotation, "model_fields", {})
    }
    | {*CameraSettings.model_fields, *StreamSettings.model_fields}
)
WORDS = st.sampled_from(
    [
        "",
        "x",
        "0",
        "1",
        "-1",
        "true",
        "auto",
        "camera",
        "stream",
        "1e400",
        "9" * 5000,
        "\0",
        "é",
        "\udcff",
        "~",
        "~nobody_here/x",
        "/",
        "/proc/x.mkv",
        "/dev/null",
        "x.avi",
        "out.mp4",
        "x" * 300,
        "http://h",
        "http://[::1",
        "http://h:99999",
        "http://h h",
        "//",
        "rtmp://h:0/a/b",
        "udp://127.0.0.1:9",
        "tcp://127.0.0.1:1",
        "rtsp://127.0.0.1:1/x",
        "rtmp://[x",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "[::1]:0",
        "[",
        "h:1:2",
        "http://h/{channel_id}",
        "http://h/{",
        "1,2:3,4:5,6:7,8",
        "30s",
        "[",
        "]",
        "{",
        "[[]]",
        "nan",
        "inf",
        "null",
        "agora",
        "webrtc",
        "standby",
        "raw",
        "never",
        "always",
        "2026-02-31",
        "1979-05-27",
    ]
)
NAMES = st.one_of(
    st.sampled_from([*SECTIONS, *KEYS]),
    st.sampled_from([*SECTIONS, *KEYS]).map(str.upper),
    st.sampled_from(["0", "1", "99", "²", "", "x", "é", '"a b"', "-", "options"]),
)
SCALARS = st.one_of(
    WORDS.filter(lambda word: "\udcff" not in word),
    st.integers(),
    st.integers(-(10**60), 10**60),
    st.floats(),
    st.booleans(),
)


def toml(value: Any) -> str:
    """Write a value as TOML; what TOML cannot express becomes an error."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value) + '"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f'"{key}" = {toml(one)}' for key, one in value.items()) + "}"
        case _:
            return str(value)


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=4)
    ),
    max_leaves=6,
).map(toml)
LINES = st.one_of(
    st.tuples(NAMES).map(lambda name: f"[{name[0]}]"),
    st.sampled_from(["[[output]]", "[source.options]", "[source", "# x", "=", "\t"]),
    st.tuples(NAMES, VALUES).map(" = ".join),
    st.tuples(NAMES, NAMES, VALUES).map(lambda three: f"{three[0]}.{three[1]} = {three[2]}"),
)
SECTION_LINES = st.tuples(
    st.sampled_from(
        [*(f"[{section}]" for section in SECTIONS if section != "output"), "[[output]]"]
    ),
    st.lists(st.tuples(st.sampled_from(KEYS), VALUES).map(" = ".join), max_size=3),
).map(lambda pair: [pair[0], *pair[1]])
FILES = st.one_of(
    st.lists(LINES, max_size=8).map("\n".join).map(lambda text: text.encode("utf-8", "replace")),
    st.lists(SECTION_LINES, max_size=3).map(
        lambda tables: "\n".join(line for table in tables for line in table).encode()
    ),
    st.binary(max_size=40),
    st.sampled_from([b"\xef\xbb\xbf", "[video]\nfps = 5".encode("utf-16"), b"[" * 100_000]),
)
VARIABLES = st.dictionaries(
    st.one_of(
        st.lists(NAMES, min_size=1, max_size=4).map(lambda names: f"RELAYD_{'__'.join(names)}"),
        st.sampled_from(
            ["AKOOL_API_KEY", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"]
        ),
        st.sampled_from(["XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY", "RELAYD_", "RELAYD___"]),
    ),
    st.one_of(WORDS, VALUES).filter(lambda word: "\0" not in word),
    max_size=4,
)
OVERRIDES = st.lists(
    st.one_of(
        st.tuples(st.lists(NAMES, max_size=4).map(".".join), st.one_of(WORDS, VALUES)).map(
            "=".join
        ),
        st.tuples(st.sampled_from(SECTIONS), st.sampled_from(KEYS), VALUES).map(
            lambda three: f"{three[0]}.{three[1]}={three[2]}"
        ),
        WORDS,
    ),
    max_size=3,
)
RUNNABLE = ["face.image=http://127.0.0.1:1/x"]
KEY = {"AKOOL_API_KEY": "kkkkkkkk"}


def require_plain(error: ConfigError) -> None:
    for fault in error.faults:
        assert fault.isprintable() or "\udcff" in fault or "\0" in fault or "é" in fault, fault
        assert "\n" not in fault
        assert "unexpected " not in fault
        assert len(fault) < 2000 or "9" * 500 in fault


@pytest.mark.timeout(TIMEOUT)
def test_no_file_variable_or_override_causes_an_unexpected_error() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "relay.toml"

        def hold(one: tuple[bytes, dict[str, str], list[str]]) -> None:
            content, environment, overrides = one
            file.write_bytes(content)
            ignored(environment)
            try:
                settings = load(file, overrides, environment)
                state_directory(settings, environment)
                control_socket(settings, "studio", environment)
                require_runnable(settings)
            except ConfigError as error:
                require_plain(error)

        fuzz(st.tuples(FILES, VARIABLES, OVERRIDES), hold)


CHECKED = ("journal", "name", "control", "standby", "output")
"""Parts of check that need no service and no library."""


@pytest.mark.timeout(TIMEOUT)
def test_no_accepted_settings_cause_an_unexpected_error_in_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relayd.commands.check_media.CONNECT_TIMEOUT", 0.2)
    assert set(CHECKED) < set(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.chdir(folder)
        base = [*RUNNABLE, f"state.directory={folder}/state", f"control.socket={folder}/x.sock"]
        keys = st.sampled_from(
            [
                "output.0.url",
                "control.socket",
                "control.http",
                "state.directory",
                "privacy.standby_image",
                "video.bitrate",
                "video.fps",
                "video.width",
            ]
        )
        outputs = ["output.0.kind=stream", f"output.0.url={folder}/out.mkv"]
        sets = st.lists(st.tuples(keys, WORDS).map("=".join), max_size=2)

        def hold(overrides: list[str]) -> None:
            try:
                settings = load(None, [*base, *outputs, *overrides], KEY)
            except ConfigError:
                return
            for part in CHECKED:
                for found in asyncio.run(check_part(part, settings, "studio")):
                    assert "unexpected " not in found.why, (overrides, found)
                    assert "given up" not in found.why, (overrides, found)

        fuzz(sets, hold)


PROXY_WORDS = st.one_of(
    WORDS.filter(lambda word: "\0" not in word),
    st.text(st.sampled_from("abz09.:/[]@%*,- \t_é"), max_size=20),
    st.ip_addresses().map(str),
    st.sampled_from(
        ["::1/128", "socks5://h:1", "http://u:p@h:3128", "*", ".example", "10.0.0.0/8"]
    ),
)


@pytest.mark.timeout(TIMEOUT)
def test_no_proxy_variable_causes_an_unexpected_error() -> None:
    names = st.sampled_from(["HTTP_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"])
    targets = st.one_of(
        st.sampled_from(["http://a.example/", "https://10.1.2.3:8443/x", "http://[fe80::1]/"]),
        PROXY_WORDS,
    )

    def hold(one: tuple[str, dict[str, str]]) -> None:
        url, environment = one
        try:
            proxy = proxy_for(url, environment)
        except ConfigError as error:
            (fault,) = error.faults
            words = fault.partition("; ")[2]
        else:
            words = proxy.description if proxy else "none"
        assert words

    fuzz(st.tuples(targets, st.dictionaries(names, PROXY_WORDS, max_size=4)), hold)


@pytest.mark.timeout(TIMEOUT)
def test_no_certificate_variable_causes_an_unexpected_error(tmp_path: Path) -> None:
    (tmp_path / "file.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"
    )
    paths = st.one_of(
        WORDS.filter(lambda word: "\0" not in word),
        st.sampled_from([str(tmp_path), str(tmp_path / "file.pem"), "/etc/ssl/certs", os.devnull]),
    )
    names = st.sampled_from(["SSL_CERT_FILE", "SSL_CERT_DIR"])

    def hold(environment: dict[str, str]) -> None:
        words = "SSL_CERT_"
        try:
            client_context(environment)
        except ConfigError as error:
            (words,) = error.faults
        assert words.startswith("SSL_CERT_")

    fuzz(st.dictionaries(names, paths), hold)
