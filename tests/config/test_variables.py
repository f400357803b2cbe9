"""Which RELAYD_ variables are ours, which are mistakes, and which belong to others."""

import pytest

from relayd.config import variables
from relayd.config.loading import load
from relayd.config.settings import Settings
from relayd.config.tree import SettingsTree
from relayd.errors import ConfigError


def of_a_service(name: str) -> dict[str, str]:
    """Return what Kubernetes puts into a container's environment for a Service of this name."""
    head = name.upper().replace("-", "_")
    address = "tcp://10.0.0.1:8642"
    return {
        f"{head}_SERVICE_HOST": "10.0.0.1",
        f"{head}_SERVICE_PORT": "8642",
        f"{head}_SERVICE_PORT_HTTP": "8642",
        f"{head}_PORT": address,
        f"{head}_PORT_8642_TCP": address,
        f"{head}_PORT_8642_TCP_PROTO": "tcp",
        f"{head}_PORT_8642_TCP_PORT": "8642",
        f"{head}_PORT_8642_TCP_ADDR": "10.0.0.1",
    }


@pytest.mark.parametrize(
    "service",
    [
        "relayd",
        "relayd-demo",
        *(f"relayd-{section}".replace("_", "-") for section in Settings.model_fields),
    ],
)
def test_what_kubernetes_sets_for_a_service_named_relayd_is_ignored_and_named(service: str) -> None:
    environment = of_a_service(service)
    assert load(None, (), environment) == load(None, (), {})
    assert variables.ignored(environment) == sorted(environment)


@pytest.mark.parametrize("name", ["NAME", "HOME", "VERSION", "LOG_LEVEL", "VM_CACHE", "IMAGE_TAG"])
def test_a_name_that_is_near_none_of_ours_is_ignored(name: str) -> None:
    tree = SettingsTree()
    assert variables.read({f"RELAYD_{name}": "x"}, tree) == []
    assert tree.values == {}
    assert variables.ignored({f"RELAYD_{name}": "x", "HOME": "/root"}) == [f"RELAYD_{name}"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("SOURCE_URL", "SOURCE__URL"),
        ("SORCE_URL", "SOURCE__URL"),
        ("SORCE__URL", "SOURCE__URL"),
        ("VIDEOS__FPS", "VIDEO__FPS"),
        ("AKOOL_API_KEY", "AKOOL__API_KEY"),
        ("API_KEY", "AKOOL__API_KEY"),
        ("ON_DEMAND_GRACE", "ON_DEMAND__GRACE"),
        ("STATE_DIR", "STATE__DIRECTORY"),
        ("OUTPUT_URL", "OUTPUT__0__URL"),
        ("VIDEOS", "VIDEO__…"),
    ],
)
def test_a_near_miss_is_an_error_that_names_the_right_variable(given: str, meant: str) -> None:
    environment = {f"RELAYD_{given}": "secret"}
    with pytest.raises(ConfigError) as caught:
        load(None, (), environment)
    assert caught.value.faults == [
        f"RELAYD_{given} (environment): unknown; did you mean RELAYD_{meant}?"
    ]
    assert variables.ignored(environment) == []


def test_a_name_with_two_underscores_is_an_error_even_where_it_is_like_none_of_ours() -> None:
    (fault,) = variables.read({"RELAYD_XYZ__A": "1"}, SettingsTree())
    assert fault.startswith("RELAYD_XYZ__A (environment): unknown; known here: source, video,")


def test_an_empty_variable_counts_as_unset() -> None:
    settings = load(
        None, ["source.loop=false"], {"RELAYD_SOURCE__LOOP": "", "RELAYD_SOURCE__URL": ""}
    )
    assert not settings.source.loop
    assert str(settings.source.url) == "/dev/video0"
    assert load(None, (), {"AKOOL_API_KEY": "k", "RELAYD_AKOOL__API_KEY": ""}).akool.api_key


@pytest.mark.parametrize("name", ["OUTPUT", "SOURCE", "SOURCE__OPTIONS", "OUTPUT__0"])
@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "[{", "x", "5", "null", '"x"'])
def test_a_value_that_is_no_json_table_is_one_line_that_names_the_variable(
    name: str, value: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, (), {f"RELAYD_{name}": value})
    (fault,) = caught.value.faults
    assert fault.startswith(f"RELAYD_{name} (environment): n")
    assert "; give '" in fault
    assert len(fault) < 200


def test_tables_and_lists_may_be_given_as_json() -> None:
    environment = {
        "RELAYD_OUTPUT": '[{"kind": "stream", "url": "x.mkv"}]',
        "RELAYD_SOURCE": '{"url": "y.mp4"}',
        "RELAYD_SOURCE__OPTIONS": '{"probesize": 32}',
        "RELAYD_SOURCE__OPTIONS__RTSP_TRANSPORT": "tcp",
    }
    settings = load(None, (), environment)
    stream = {"kind": "stream", "url": "x.mkv", "audio": "aac"}
    assert settings.output[0].model_dump(mode="json") == stream
    assert settings.source.url.reveal() == "y.mp4"
    assert settings.source.options == {"probesize": "32", "rtsp_transport": "tcp"}


@pytest.mark.parametrize("name", ["RELAYD_VIDEO__", "RELAYD_OUTPUT____URL"])
def test_a_variable_with_a_name_missing_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is missing") as caught:
        load(None, (), {name: "x"})
    assert caught.value.faults[0].startswith(f"{name} (environment): ")


def test_the_tenth_output_comes_after_the_ninth() -> None:
    environment = {
        f"RELAYD_OUTPUT__{number}__{key}": value
        for number in range(12)
        for key, value in (("KIND", "stream"), ("URL", f"{number}.mkv"))
    }
    outputs = load(None, (), environment).output
    assert [one.model_dump(mode="json")["url"] for one in outputs] == [
        f"{n}.mkv" for n in range(12)
    ]


def test_a_blank_variable_counts_as_unset_and_a_fault_names_it_as_it_is_spelt() -> None:
    environment = {"RELAYD_SOURCE__URL": " \n", "relayd_video__fps": "much"}
    with pytest.raises(ConfigError) as caught:
        load(None, (), environment)
    (fault,) = caught.value.faults
    assert fault.endswith("(relayd_video__fps in the environment)")
    assert load(None, (), {**environment, "RELAYD_VIDEO__FPS": "5"}).video.fps == 5
