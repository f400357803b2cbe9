import contextlib
import os
import tomllib
from pathlib import Path
from threading import Thread
from traceback import format_exception
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.config import loading
from relayd.config.addresses import parse_address
from relayd.config.loading import load, load_tree
from relayd.config.paths import control_socket, state_directory
from relayd.config.requirements import require_runnable
from relayd.config.settings import Settings, StreamSettings
from relayd.config.socket_folders import user_folders
from relayd.errors import ConfigError, ExitCode

EXAMPLES = Path(__file__).parents[2] / "config"


def faults_of(text: str, tmp_path: Path, *overrides: str, **environment: str) -> list[str]:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, overrides, environment)
    assert caught.value.exit_code is ExitCode.CONFIG
    return caught.value.faults


def test_the_example_holds_every_key_with_its_default() -> None:
    example = tomllib.loads((EXAMPLES / "relayd.toml").read_text())
    settings = load(None, environment={})
    defaults: dict[str, Any] = settings.model_dump(mode="json")
    defaults["akool"] |= {"api_key": "", "client_secret": ""}
    for section, key in (("rtc", "publish_url"), ("rtc", "play_url")):
        defaults[section][key] = getattr(getattr(settings, section), key).reveal()
    assert example == defaults


def test_a_source_has_a_kind_that_relayd_knows_and_limits_in_bounds(tmp_path: Path) -> None:
    wrong = '[source]\nkind = "webcam"\nrefresh = 0\nopen_timeout = -1\nfirst_frame_timeout = "x"'
    kind, refresh, opening, first = faults_of(wrong, tmp_path)
    assert kind.startswith("source.kind = 'webcam': must be ")
    assert all(one in kind for one in ("auto", "live", "file", "image", "camera", "line 2"))
    assert refresh == "source.refresh = 0: must be 0.05 or more (relay.toml, line 3)"
    assert opening == "source.open_timeout = -1: must be 0.5 or more (relay.toml, line 4)"
    assert first.startswith("source.first_frame_timeout = 'x': must be a number")


def test_a_camera_on_the_network_is_no_capture_device(tmp_path: Path) -> None:
    (fault,) = faults_of('[source]\nurl = "rtsp://cam/1"\nkind = "camera"', tmp_path)
    assert fault.startswith("source.kind = 'camera': is a capture device of this machine")
    assert 'give "live"' in fault
    assert load_tree({"source": {"url": "/dev/video1", "kind": "camera"}}).source.kind == "camera"


def test_each_example_loads() -> None:
    for file in EXAMPLES.glob("*.toml"):
        load(file, environment={})


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    assert faults_of('[source]\nurll = "x"', tmp_path) == [
        "source.urll: unknown key; did you mean source.url? (relay.toml, line 2)"
    ]
    assert faults_of("[source]\nfps = 5", tmp_path) == [
        "source.fps: unknown key; did you mean video.fps? (relay.toml, line 2)"
    ]
    assert faults_of("[vidoe]\nfps = 5", tmp_path) == [
        "[vidoe]: unknown table; did you mean video? (relay.toml, line 1)"
    ]
    assert faults_of('[[output]]\nkind="camera"\ndevise="x"', tmp_path) == [
        "output.0.devise: unknown key; did you mean output.device? (relay.toml, line 3)"
    ]


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    faults = faults_of('[video]\nwidth=641\nfps="fast"\nfit="zoom"', tmp_path)
    assert [fault.split(" = ")[0] for fault in faults] == ["video.width", "video.fps", "video.fit"]
    assert "641" in faults[0]
    assert "'crop', 'pad' or 'stretch'" in faults[2]


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    assert "12345" not in faults_of("[akool]\napi_key = 12345", tmp_path)[0]


def test_a_url_password_is_not_shown_in_a_fault(tmp_path: Path) -> None:
    faults = faults_of('[face]\nimage = "ftp://me:hunter22@host/x.png"', tmp_path)
    assert "hunter22" not in faults[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[source\n", "not valid TOML"),
        (b"\xff\xfe[\0", "not UTF-8 text but UTF-16; save it as UTF-8"),
        ("[face]\nimage = 'caf\xe9'".encode("latin-1"), "line 2 is not UTF-8 text; save it"),
        (b"[video]\nfps = " + b"9" * 5000, "not valid TOML: a number has too many digits"),
        (b"output = " + b"[" * 2000 + b"]" * 2000, "not valid TOML: nested too deeply"),
        (b"[video]\nfps = 2026-02-31", "not valid TOML"),
        (b"#" * (loading.LARGEST_FILE + 1), "larger than 1024 KiB"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        load(file, environment={})
    assert "broken.toml" in str(caught.value)


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_bytes(b"\xef\xbb\xbf[video]\r\nfps = 10\r\n")
    assert load(file, environment={}).video.fps == 10


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml", environment={})


def test_environment_beats_file_and_set_beats_environment(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[video]\nfps = 10\nbitrate = 1000\nwidth = 320")
    environment = {"RELAYD_VIDEO__FPS": "15", "RELAYD_VIDEO__BITRATE": "2000"}
    video = load(file, ["video.bitrate=3000"], environment).video
    assert (video.fps, video.bitrate, video.width) == (15.0, 3000, 320)


def test_each_fault_says_where_its_value_came_from(tmp_path: Path) -> None:
    text = "[video]\n# the size\nwidth = 641\nheight = 480\n[source]\nloop = 'maybe'"
    number = "must be a number without a unit, like 2.5"
    overrides, environment = ["video.bitrate=1"], {"RELAYD_VIDEO__FPS": "a"}
    assert faults_of(text, tmp_path, *overrides, **environment) == [
        "source.loop = 'maybe': must be true or false (relay.toml, line 6)",
        "video.width = 641: must be a multiple of 2 (relay.toml, line 3)",
        f"video.fps = 'a': {number} (RELAYD_VIDEO__FPS in the environment)",
        "video.bitrate = 1: must be 50 or more (--set video.bitrate)",
    ]
    (fault,) = faults_of(text.replace("'maybe'", "true"), tmp_path, "video.width=3")
    assert fault.endswith("(--set video.width)"), "what came last is what counts"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[Source]\nurl = 'x'", "[Source]: names are case-sensitive; write [source] ("),
        ("[source]\nURL = 'x'", "source.URL: names are case-sensitive; write source.url ("),
        ("[[Output]]\nkind = 'camera'", "Output: names are case-sensitive; write output ("),
        ("[[output]]\nKind = 'camera'", 'output.0.kind: missing; write kind = "camera",'),
    ],
)
def test_names_are_case_sensitive_and_the_right_one_is_suggested(
    tmp_path: Path, text: str, says: str
) -> None:
    faults = faults_of(text, tmp_path)
    assert faults[0].startswith(says)
    with_set = faults_of(text, tmp_path, "video.fps=999")
    assert any(fault.startswith("video.fps = 999: ") for fault in with_set), "it is not lost"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[output]\nkind = 'camera'",
            "output: each output is a table of its own; write [[output]]",
        ),
        ("output = 5", "output: each output is a table of its own; write [[output]]"),
        ("output = [5]", "output.0 = 5: must be a table; write [[output]] on a line"),
        ("source = 'x'", "source = ***: must be a table; write [source] on a line"),
        ("[source]\noptions = 5", "source.options = ***: must be a table; write [source.options]"),
        ("[[output]]\nurl = 'x'", 'output.0.kind: missing; write kind = "camera",'),
        ("[[output]]\nkind = 'file'", "output.0.kind = 'file': no such kind; write kind ="),
        ("[[output]]\nkind = 'stream'", "output.0.url: missing; give a value"),
        ("[on_demand]\ngrace = '30s'", "on_demand.grace = '30s': must be a number without a unit"),
        ("[on_demand]\ngrace = -1", "on_demand.grace = -1: must be 0 or more"),
        ("[video]\nfps = 1e400", "video.fps = inf: must be a finite number"),
        ("[video]\nrotate = 45", "video.rotate = 45: must be 0, 90, 180 or 270"),
        ("[video]\nrotate = true", "video.rotate = true: must be 0, 90, 180 or 270"),
        ("[video]\nmirror = 2", "video.mirror = 2: must be true or false"),
        ("[source]\nstream = -1", 'source.stream = -1: must be "best", or the number of a video'),
        ("[source]\nstream = 'worst'", "source.stream = 'worst': must be \"best\", or the number"),
        ("[video]\nwidth = 640.5", "video.width = 640.5: must be a whole number"),
        ("[video]\nwidth = 1e300", "video.width = 1e+300: "),
        (f"[video]\nwidth = {'9' * 4000}", "video.width = 9"),
        ("[video]\nfit = 1979-05-27", "video.fit = 1979-05-27: must be 'crop'"),
        ("[source]\nurl = ''", "source.url = '': give a URL or a path"),
        ("[control]\nhttp = ':8642'", "control.http = ':8642': give host and port, like"),
        ("[akool]\nbase_url = 'http://h:99999'", "akool.base_url = 'http://h:99999': the port"),
        ("[face]\nimage = 'http://h:99999/x'", "face.image = 'http://h:99999/x': the port"),
        ("[akool]\nbase_url = 'http://h h'", "akool.base_url = 'http://…': give an http(s) URL"),
        ("[face]\nimage = 'http://[::1'", "face.image = 'http://…': "),
        ("[akool]\nx = 5", "akool.x: unknown key; known here: base_url, api_key,"),
    ],
)
def test_each_fault_is_described_in_plain_text(tmp_path: Path, text: str, says: str) -> None:
    (fault,) = faults_of(text, tmp_path)
    assert fault.startswith(says)
    assert "(relay.toml, line " in fault
    for jargon in ("input", "tag", "discriminator", "instance", "valid string"):
        assert jargon not in fault.replace("[[output]]", "")


@pytest.mark.parametrize(
    "given",
    [
        "output.0.url=rtmp://user:HIDEME\u2100@h/live/x",
        "output.0.url=rtmp://user:HIDEME@[::1/live/x",
        "output.0.url=rtmp://h:HIDEME/live/x",
        "face.image=http://user:HIDEME\u2100@h/x.png",
        "akool.base_url=http://h:HIDEME",
        "rtsp://user:HIDEME@h/x?y=1",
        "rtsp://user:HIDEME@h/x?y=[1",
        "rtsp://user:HIDEME@h/x.z?y=1",
        'source={"rtsp://user:HIDEME@h"=1}',
    ],
)
def test_a_url_that_is_none_and_one_in_a_keys_place_are_refused_without_its_secret(
    given: str,
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, ["output.0.kind=stream", given], {})
    assert "HIDEME" not in "".join(format_exception(caught.value))


def test_outputs_can_be_set_one_by_one(tmp_path: Path) -> None:
    environment = {"RELAYD_OUTPUT__0__KIND": "stream", "RELAYD_OUTPUT__0__URL": "a.mkv"}
    first = {"kind": "stream", "url": "a.mkv", "audio": "aac"}
    assert [one.model_dump(mode="json") for one in load(None, (), environment).output] == [first]
    sets = ["output.0.url=b.mkv", "output.1.kind=camera"]
    outputs = [one.model_dump(mode="json") for one in load(None, sets, environment).output]
    assert outputs == [first | {"url": "b.mkv"}, {"kind": "camera", "device": "auto"}]
    file = tmp_path / "relay.toml"
    file.write_text("[[output]]\nkind = 'stream'\nurl = 'x.mkv'\n[[output]]\nkind = 'camera'")
    outputs = [one.model_dump(mode="json") for one in load(file, ["output.0.url=y.mkv"], {}).output]
    assert outputs == [first | {"url": "y.mkv"}, {"kind": "camera", "device": "auto"}]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("output.url=x", "--set output.url: output is a list: say which one, like output.0.url"),
        ("output.5.url=x", "--set output.5.url: output has 1: the next one is output.1"),
        ("output.99999999999999999999.url=x", "output has 1: the next one is output.1"),
    ],
)
def test_an_output_that_is_not_there_is_named(tmp_path: Path, given: str, says: str) -> None:
    assert says in faults_of("[[output]]\nkind = 'camera'", tmp_path, given)[0]


def test_an_unknown_environment_name_is_a_fault(tmp_path: Path) -> None:
    faults = faults_of("", tmp_path, RELAYD_VIDEOS__FPS="15")
    assert faults == ["RELAYD_VIDEOS__FPS (environment): unknown; did you mean RELAYD_VIDEO__FPS?"]


@pytest.mark.parametrize("text", ["video", "=3", "video.=3", ".fps=3"])
def test_a_set_without_key_or_value_says_how_it_goes(tmp_path: Path, text: str) -> None:
    assert "section.key=value" in faults_of("", tmp_path, text)[0]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 2000 + "]" * 2000, "{a=" * 2000])
def test_a_value_of_set_that_toml_cannot_parse_is_one_line(tmp_path: Path, value: str) -> None:
    (fault,) = faults_of("", tmp_path, f"video.fps={value}")
    assert fault.startswith("--set video.fps: not a TOML value: ")
    assert len(fault) < 200


def test_keys_come_from_the_environment_or_from_systemd_credentials(tmp_path: Path) -> None:
    assert load(None, environment={"AKOOL_API_KEY": "k1"}).akool.api_key.get_secret_value() == "k1"
    (tmp_path / "akool-client-secret").write_text("s2\n")
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(None, environment=credentials).akool.client_secret.get_secret_value() == "s2"


def test_a_long_path_of_a_credential_is_cut_in_its_fault() -> None:
    environment = {"CREDENTIALS_DIRECTORY": "/x" * 10_000}
    with pytest.raises(ConfigError) as caught:
        load(None, (), environment)
    assert "File name too long" in caught.value.faults[0]
    assert max(map(len, caught.value.faults)) < 300


def test_a_credential_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "akool-api-key").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"akool-api-key \(systemd credential\): not UTF-8"):
        load(None, environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_what_run_needs_and_lacks_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        require_runnable(load(None, ["output=[]"], {}))
    assert [fault.split(":")[0].split(" ")[0] for fault in caught.value.faults] == [
        "face.image",
        "output",
        "akool.api_key",
    ]
    with pytest.raises(ConfigError, match=r"akool\.client_secret: missing"):
        require_runnable(load(None, ["face.image=http://x/y", "akool.client_id=a"], {}))


def test_url_templates_may_name_only_fields_of_the_session(tmp_path: Path) -> None:
    faults = faults_of('[rtc]\nplay_url = "http://x/{room}"', tmp_path)
    assert "{channel_id}" in faults[0]
    assert "{" in faults_of('[rtc]\nplay_url = "http://x/{"', tmp_path)[0]


def test_options_are_handed_to_ffmpeg_as_text() -> None:
    options = load(None, ["source.options={ low_delay = true, probesize = 32 }"], {}).source.options
    assert options == {"low_delay": "1", "probesize": "32"}


def test_the_state_directory_is_as_set_else_systemds_else_the_users() -> None:
    assert state_directory(load(None, ["state.directory=/x"], {}), {}) == Path("/x")
    assert state_directory(load(None, (), {}), {"STATE_DIRECTORY": "/var/lib/relayd/a"}) == Path(
        "/var/lib/relayd/a"
    )
    assert state_directory(load(None, (), {}), {"XDG_STATE_HOME": "/h"}) == Path("/h/relayd")


def test_who_asks_about_a_relay_of_the_system_finds_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SYSTEM_CONFIGURATION", tmp_path / "etc")
    monkeypatch.setattr(loading, "SYSTEM_STATE", tmp_path / "lib")
    (tmp_path / "etc").mkdir()
    file, elsewhere = tmp_path / "etc" / "studio.toml", tmp_path / "studio.toml"
    for path in (file, elsewhere):
        path.write_text("")
    assert load(file, (), {}).state.directory == "", "its service never ran"
    (tmp_path / "lib" / "studio").mkdir(parents=True)
    assert load(file, (), {}).state.directory == str(tmp_path / "lib" / "studio")
    assert load(file, ["state.directory=/srv/x"], {}).state.directory == "/srv/x"
    assert load(file, (), {"STATE_DIRECTORY": "/run/x"}).state.directory == ""
    assert load(elsewhere, (), {}).state.directory == ""


def test_the_control_socket_lies_where_it_is_set_or_in_the_runtime_directory() -> None:
    assert control_socket(load_tree({"control": {"socket": "/x/y.sock"}}), "a") == Path("/x/y.sock")
    environment = {"RUNTIME_DIRECTORY": "/run/relayd/a"}
    path = control_socket(load_tree({}), "a", environment)
    assert path == Path("/run/relayd/a/control.sock")


@pytest.mark.parametrize("address", ["0.0.0.0:8642", "[::]:8642", "192.0.2.1:1", "relay.lan:8642"])
def test_an_address_that_other_machines_reach_is_refused_unless_it_is_meant(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_tree({"control": {"http": address, "token": "a-token-for-the-tests"}})
    (fault,) = caught.value.faults
    assert fault.startswith(f"control.http = {address!r}: ")
    assert "control.insecure = true" in fault
    assert "TLS" in fault
    control = load_tree({"control": {"http": address, "insecure": True}}).control
    assert control.address


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_an_address_of_this_machine_alone_needs_no_permission(address: str) -> None:
    assert load_tree({"control": {"http": address}}).control.address


@pytest.mark.parametrize(
    "token", ["short", "with a blank in it", "x" * 257, "größer-als-ascii-ist"]
)
def test_a_token_that_no_url_or_nobody_could_hold_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_tree({"control": {"token": token}})
    (fault,) = caught.value.faults
    assert fault.startswith("control.token = ***: give 16 to 256")
    assert token not in fault


def test_the_token_may_come_from_the_environment_or_a_credential(tmp_path: Path) -> None:
    (tmp_path / "control-token").write_text("of-a-credential-file\n")
    folder = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = load(None, (), folder)
    assert settings.control.token.get_secret_value() == "of-a-credential-file"
    assert "of-a-credential" not in repr(settings)
    settings = load(None, (), folder | {"RELAYD_CONTROL__TOKEN": "of-the-environment"})
    assert settings.control.token.get_secret_value() == "of-the-environment"


def test_what_is_public_and_which_hosts_are_allowed_is_checked() -> None:
    control = load_tree(
        {"control": {"public": ["healthz"], "allowed_hosts": ["relay.lan", "cam.example:8443"]}}
    ).control
    assert control.public == ("healthz",)
    assert control.allowed_hosts == ("relay.lan", "cam.example:8443")
    environment = {"RELAYD_CONTROL__PUBLIC": '["metrics"]'}
    assert load(None, (), environment).control.public == ("metrics",)
    with pytest.raises(ConfigError, match=r"control\.public\.0 = 'status'"):
        load_tree({"control": {"public": ["status"]}})
    with pytest.raises(ConfigError, match=r"'https://relay.lan' is no host name"):
        load_tree({"control": {"allowed_hosts": ["https://relay.lan"]}})


@pytest.mark.parametrize("text", ["", "host", "host:", "host:99999", ":80", "a:1/x", "u@h:1"])
def test_an_address_needs_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        parse_address(text)


def test_an_ipv6_address_is_read() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "x"]), JSON, max_size=4))
def test_no_tree_of_values_breaks_the_reading(tree: dict[str, Any]) -> None:
    overrides = [f"{key}={value!r}" for key, value in tree.items()]
    with contextlib.suppress(ConfigError):
        load(None, overrides, {})


def test_on_demand_always_needs_a_camera_whose_readers_ask() -> None:
    sets = ["face.image=http://x/y", "on_demand.mode=always"]
    key = {"AKOOL_API_KEY": "k"}
    require_runnable(load(None, sets, key))
    with pytest.raises(ConfigError, match=r'on_demand\.mode = "always": needs an \[\[output\]\]'):
        require_runnable(load(None, [*sets, 'output=[{kind="stream", url="out.mkv"}]'], key))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("video.fps=true", "video.fps = true: must be a number"),
        ("akool.session_max=true", "akool.session_max = true: must be a number"),
        ("video.width=false", "video.width = false: must be a number"),
        ("source.options={ a = [1] }", "source.options.a = ***: must be text in quotes"),
        ("akool.base_url='http://h/?q'", "calls are appended to it, so it can have no ?"),
        ("akool.base_url='http://h/#f'", "calls are appended to it, so it can have no ?"),
        ("control.http='127.0.0.1:80?x'", "give host and port"),
        ("control.http='@127.0.0.1:80'", "give host and port"),
        ("output.0.url=rtmp://", "it names no host; write it like rtmp://host/…"),
        ("output.0.url=rtmp:///live/x", "it names no host"),
        ("output.0.url=rtmp:/h/live/x", "it names no host"),
        ("output.0.url=rtsp://", "it names no host"),
        ("output.0.url=udp://h", "it names no port; write it like udp://host:5000"),
        ("output.0.url=tcp://h", "it names no port"),
        ("output.0.url=rtp://h", "it names no port"),
        ("output.0.url='srt://?mode=listener'", "it names no port"),
        ("output.0.url='srt://:5000?mode=caller'", "it names no host"),
    ],
)
def test_settings_that_could_never_work_are_refused_by_run_and_check_alike(
    given: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, ["output.0.kind=stream", "output.0.url=x.mkv", given], {})
    (fault,) = caught.value.faults
    assert says in fault


@pytest.mark.parametrize(
    "url", ["srt://:5000?mode=listener", "tcp://:5000?listen", "tcp://:5000?listen=1", "udp://h:1"]
)
def test_a_stream_may_wait_for_a_client(url: str) -> None:
    (output,) = load(None, ["output.0.kind=stream", f"output.0.url='{url}'"], {}).output
    assert isinstance(output, StreamSettings)
    assert output.url.reveal() == url


@pytest.mark.parametrize(
    "url", ["rtmp://host/live/key", "rtmps://host/live/key", "out.flv", "o.mov"]
)
def test_opus_is_refused_where_the_target_cannot_carry_it(tmp_path: Path, url: str) -> None:
    (fault,) = faults_of(f"[[output]]\nkind = 'stream'\nurl = '{url}'\naudio = 'opus'", tmp_path)
    assert fault.startswith("output.0.audio = 'opus': ")
    assert "no Opus" in fault
    assert 'give audio = "aac", or another kind of target' in fault
    assert fault.endswith("(relay.toml, line 4)")


@pytest.mark.parametrize(
    "url", ["srt://host:9000", "udp://host:9000", "rtsp://host/cam", "out.mkv", "out.mp4", "out.ts"]
)
def test_opus_is_taken_where_the_target_carries_it(url: str) -> None:
    given = ["output.0.kind=stream", f"output.0.url='{url}'", "output.0.audio=opus"]
    (output,) = load(None, given, {}).output
    assert isinstance(output, StreamSettings)
    assert output.audio == "opus"


def test_a_fault_names_the_variable_that_made_an_output_or_took_a_values_place(
    tmp_path: Path,
) -> None:
    text = "[[output]]\nkind = 'stream'\nurl = 'x.mkv'"
    for name in ("RELAYD_OUTPUT__1__URL", "RELAYD_OUTPUT__0__URL__X"):
        (fault,) = faults_of(text, tmp_path, **{name: "y.mkv"})
        assert fault.endswith(f"({name} in the environment)")


def test_a_pipe_is_read_to_its_end_and_one_that_nobody_fills_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PIPE_TIMEOUT", 0.2)
    fifo = tmp_path / "fifo.toml"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="nobody writes it to its end"):
        load(fifo, (), {})
    monkeypatch.setattr(loading, "PIPE_TIMEOUT", 10.0)

    def write() -> None:
        with fifo.open("w") as pipe:
            pipe.write("[video]\n")
            pipe.flush()
            pipe.write("fps = 7")

    writer = Thread(target=write)
    writer.start()
    assert load(fifo, (), {}).video.fps == 7
    writer.join()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_a_file_of_another_encoding_is_reported_as_that(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_bytes("[video]\nfps = 7".encode(encoding))
    with pytest.raises(ConfigError, match="not UTF-8 text: NUL bytes are in it; save it as UTF-8"):
        load(file, (), {})


def test_folders_of_xdg_that_are_relative_are_ignored_as_its_specification_says() -> None:
    assert state_directory(load(None, (), {}), {"XDG_STATE_HOME": "rel"}).is_absolute()
    socket = control_socket(load_tree({}), "a", {"XDG_RUNTIME_DIR": "rel"})
    assert socket.is_absolute()
    assert all(folder.is_absolute() for folder in user_folders({"XDG_RUNTIME_DIR": "rel"}, 1))


@pytest.mark.parametrize("name", ["API_KEY", "CLIENT_SECRET"])
def test_a_secret_with_bytes_that_are_no_text_is_named_and_not_shown(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, (), {f"RELAYD_AKOOL__{name}": "sesame\udcff"})
    (fault,) = caught.value.faults
    assert fault.startswith(f"akool.{name.lower()} = ***: has bytes that are not UTF-8 text")
    assert "sesame" not in fault


@pytest.mark.parametrize(
    ("microphones", "says"),
    [
        ([{"device": "hw:1"}], 'output.0.device = \'hw:1\': give "auto", "pulse", or an ALSA'),
        ([{"device": "alsa:"}], "output.0.device = 'alsa:': give"),
        ([{"name": "\n"}], "programs list it: give letters or digits"),
        ([{"name": "x" * 65}], "must have at most 64 characters"),
        ([{"nam": "x"}], "output.0.nam: unknown key; did you mean output.name?"),
        ([{"name": "a b"}, {"name": "A-B"}], "two microphones need names that differ"),
    ],
)
def test_a_wrong_microphone_is_named(microphones: list[dict[str, str]], says: str) -> None:
    outputs = [{"kind": "microphone"} | each for each in microphones]
    with pytest.raises(ConfigError) as caught:
        load_tree({"output": outputs})
    assert says in caught.value.faults[0]
