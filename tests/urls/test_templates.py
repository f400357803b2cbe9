import pytest

from relayd.config.loading import load_tree
from relayd.errors import ConfigError
from relayd.logs import redact
from relayd.urls.safe import MediaUrl
from relayd.urls.templates import fill_url

VALUES = {"channel_id": "a/b c?d#e%", "front_user_id": "1"}


def test_values_are_percent_encoded_into_urls() -> None:
    url = fill_url("https://h:8/{channel_id}/{front_user_id}/whip", VALUES)
    assert url == "https://h:8/a%2Fb%20c%3Fd%23e%25/1/whip"


@pytest.mark.parametrize(
    "template",
    [
        "http://h/{chanel_id}",
        "http://h/{token}",
        "http://h/{channel_id!r}",
        "http://h/{channel_id:>99}",
        "http://h/{channel_id.__class__}",
        "http://h/{}",
        "http://h/{channel_id",
        "ftp://h/{channel_id}",
        "/{channel_id}",
        "http://h:99999/",
        "http://[",
        "",
    ],
)
def test_a_wrong_template_is_refused_when_it_is_configured_not_when_it_is_used(
    template: str,
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_tree({"rtc": {"play_url": template}})
    assert f"rtc.play_url = {redact(str(MediaUrl(template)))!r}: " in str(refused.value)
    with pytest.raises(ValueError, match=r"."):
        fill_url(template, VALUES)
