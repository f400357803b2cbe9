"""Concealed secrets: bounded, newest kept, those of the configuration permanently."""

import base64
import html
import json
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from relayd import logs
from relayd.config.loading import load
from relayd.control.access import Token
from relayd.urls.concealed import HIDDEN, MOST_KEPT, Concealed
from relayd.urls.safe import MediaUrl


def test_only_the_newest_are_kept_and_those_of_the_configuration_permanently() -> None:
    known = Concealed()
    known.add("the-api-key", lasting=True)
    for number in range(1000):
        known.add(f"token-{number:04}")
    assert len(known) == MOST_KEPT + 1
    text = known.replaced_in("the-api-key token-0999 token-0950 token-0949")
    assert text == f"{HIDDEN} {HIDDEN} {HIDDEN} token-0949"


def test_a_secret_used_again_becomes_the_newest() -> None:
    known = Concealed(most=2)
    for secret in ("secret-1", "secret-2", "secret-1", "secret-3"):
        known.add(secret)
    assert known.replaced_in("secret-1 secret-2") == f"{HIDDEN} secret-2"


def test_secrets_of_the_configuration_are_bounded_too() -> None:
    known = Concealed(most_lasting=3)
    for number in range(10):
        known.add(f"secret-{number}", lasting=True)
    assert len(known) == 3


def test_a_secret_that_becomes_lasting_stays() -> None:
    known = Concealed(most=1)
    known.add("secret-1")
    known.add("secret-1", lasting=True)
    known.add("secret-1")
    known.add("secret-2")
    assert known.replaced_in("secret-1") == HIDDEN


def test_short_strings_and_parts_of_the_replacement_are_left_alone() -> None:
    known = Concealed()
    known.add("short")
    known.add("example", "https://example.org")
    assert len(known) == 0


def test_threads_may_add_and_read_at_the_same_time() -> None:
    known = Concealed()

    def add(start: int) -> None:
        for number in range(500):
            known.add(f"token-{start + number:06}")
            known.replaced_in("token-000001")

    threads = [threading.Thread(target=add, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(known) == MOST_KEPT


SPELT = 'first "line"\nsecond/line + <ü> & more'


@pytest.mark.parametrize(
    "written",
    [
        str,
        repr,
        json.dumps,
        html.escape,
        quote,
        quote_plus,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: json.dumps(secret).replace("/", "\\/"),
        lambda secret: quote(secret, safe=""),
        lambda secret: str(secret.encode()),
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: secret.splitlines()[1],
    ],
)
def test_a_secret_is_recognised_in_every_encoding(written: Callable[[str], str]) -> None:
    known = Concealed()
    known.add(SPELT, lasting=True)
    text = known.replaced_in(f"refused: {written(SPELT)}.")
    assert HIDDEN in text
    encoded = base64.b64encode(SPELT.encode()).decode()
    assert not any(part in text for part in ("first", "second", encoded[:6]))


def test_a_password_in_a_url_is_recognised_in_a_basic_auth_header() -> None:
    for user_info in ("me:pass-W0rd-1", "tok-en-77-aaaa", "m%40e:p%2Fass-W0rd"):
        MediaUrl(f"https://{user_info}@host/x").reveal()
    for sent in ("me:pass-W0rd-1", "tok-en-77-aaaa:", "m@e:p/ass-W0rd"):
        header = base64.b64encode(sent.encode()).decode()
        assert header.rstrip("=") not in logs.redact(f"header: Basic {header}")


def test_a_configuration_with_many_secrets_keeps_the_account_s_key_concealed(
    tmp_path: Path,
) -> None:
    outputs = "".join(
        f'[[output]]\nkind = "stream"\nurl = "rtsp://u{n}:pass-W0rd-{n}@h/x?token=tok-{n:08}"\n'
        for n in range(60)
    )
    file = tmp_path / "relay.toml"
    file.write_text(f'[akool]\napi_key = "the-key-of-many-outputs"\n{outputs}')
    load(file, (), {})
    text = logs.redact("the-key-of-many-outputs pass-W0rd-0 pass-W0rd-59 tok-00000000")
    assert text == f"{HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN}"


def test_the_page_s_token_and_its_cookie_stay_concealed_for_as_long_as_they_are_good() -> None:
    token = Token.random()
    for number in range(4 * MOST_KEPT):
        logs.conceal(f"a-token-that-passes-{number}")
    assert logs.redact(f"{token.text} {token.cookie}") == f"{HIDDEN} {HIDDEN}"
