"""The client against a hostile service on a real socket."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import stamina

from relayd import logs
from relayd.akool.client import LARGEST_BODY, AkoolClient
from relayd.akool.credentials import ApiKey, ClientSecret
from relayd.akool.models import Status
from relayd.akool.retry import (
    LONGEST_WAIT,
    never_acted_on,
    repeated_if_not_acted_on,
    worth_repeating,
)
from relayd.errors import (
    CredentialsRefused,
    FaceRejected,
    QuotaExhausted,
    RequestRefused,
    ServerFault,
    ServiceError,
    ServiceUnreachable,
    SessionDoubtful,
    SessionUnknown,
    Throttled,
)
from relayd.http.client import HttpClient

if TYPE_CHECKING:
    from tests.akool.conftest import Service

IMAGE, FACE = "https://example.org/face.png", "1,2:3,4:5,6:7,8"


def answer(body: bytes, status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a byte every 50 ms: each read is in time, the whole answer never is."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def cut(writer: asyncio.StreamWriter) -> None:
    """End in the middle of the body."""
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"code": 1000, "data": {"_id"')
    await writer.drain()


async def giant(writer: asyncio.StreamWriter) -> None:
    """Never end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def close_at_once(writer: asyncio.StreamWriter) -> None:
    """Close without an answer."""


INVALID: list[tuple[Any, type[ServiceError]]] = [
    (drip, ServiceUnreachable),
    (cut, ServiceUnreachable),
    (close_at_once, ServiceUnreachable),
    (giant, ServerFault),
    (answer(b"<html>Bad gateway</html>", 502), ServerFault),
    (answer(b"<html>Sign in to the Wi-Fi</html>", 200), ServerFault),
    (answer(b"", 302, location="https://example.org"), ServerFault),
    (answer(b'{"code": 1000, "data": {"_i', 200), ServerFault),
    (answer(b"", 200), ServerFault),
    (answer(b"[" * 100_000, 200), ServerFault),
    (answer(b"\xff\xfe\x00", 200), ServerFault),
    (b"SSH-2.0-OpenSSH_9.2\r\n", ServiceUnreachable),
    ({}, ServerFault),
    ([], ServerFault),
    ({"code": "ok"}, ServerFault),
    ({"code": 4711, "msg": "?"}, ServerFault),
]

CODES: list[tuple[int, type[ServiceError], str]] = [
    (1003, RequestRefused, "[face]"),
    (1004, CredentialsRefused, "account"),
    (1005, Throttled, ""),
    (1006, QuotaExhausted, "top up"),
    (1009, RequestRefused, "account"),
    (1010, RequestRefused, ""),
    (1011, RequestRefused, ""),
    (1014, RequestRefused, ""),
    (1015, ServerFault, ""),
    (1016, ServerFault, ""),
    (1017, ServerFault, ""),
    (1101, CredentialsRefused, "[akool] api_key"),
    (1102, CredentialsRefused, "[akool] api_key"),
    (1103, QuotaExhausted, "top up"),
    (1104, QuotaExhausted, "top up"),
    (1109, CredentialsRefused, "[akool] api_key"),
    (1200, CredentialsRefused, "account"),
]


@pytest.mark.parametrize(("code", "error", "hint"), CODES)
async def test_each_documented_code_raises_its_error(
    service: "Service", client: AkoolClient, code: int, error: type[ServiceError], hint: str
) -> None:
    service.on("update", {"code": code, "msg": "because of it"})
    with pytest.raises(error) as caught:
        await client.update("1", IMAGE, FACE)
    assert type(caught.value) is error
    assert caught.value.code == code
    assert hint in caught.value.hint
    assert all(word in str(caught.value) for word in ("live/update", str(code), "because of it"))
    assert service.count("update") == (3 if error.retryable else 1)


async def test_a_code_may_come_as_text(service: "Service", client: AkoolClient) -> None:
    service.on("update", {"code": "1104"})
    with pytest.raises(QuotaExhausted):
        await client.update("1", IMAGE, FACE)
    service.on("update", {"code": "1000"})
    await client.update("1", IMAGE, FACE)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRefused),
        (401, CredentialsRefused),
        (402, QuotaExhausted),
        (403, CredentialsRefused),
        (404, RequestRefused),
        (429, Throttled),
        (500, ServerFault),
        (504, ServerFault),
    ],
)
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"msg": "no"}', b"null"])
async def test_each_http_status_raises_its_error(
    service: "Service", client: AkoolClient, status: int, error: type[ServiceError], body: bytes
) -> None:
    service.on("update", answer(body, status))
    with pytest.raises(error) as caught:
        await client.update("1", IMAGE, FACE)
    assert type(caught.value) is error
    assert f"HTTP {status}" in str(caught.value)


@pytest.mark.parametrize(("reply", "error"), INVALID)
async def test_an_invalid_answer_is_a_clear_error_within_the_deadline(
    service: "Service", http: HttpClient, reply: Any, error: type[ServiceError]
) -> None:
    client = AkoolClient(service.url, ApiKey("the-key-of-the-tests"), http, call_deadline=0.4)
    service.on("create", reply)
    began = time.monotonic()
    with pytest.raises(SessionDoubtful) as caught:
        await client.create(IMAGE, FACE)
    assert type(caught.value.__cause__) is error
    assert str(caught.value.__cause__) in str(caught.value)
    assert str(caught.value).isprintable()
    assert time.monotonic() - began < 2.0
    assert service.count("create") == 1
    assert not never_acted_on(caught.value)


async def test_an_answer_is_not_read_past_its_largest_size(
    service: "Service", client: AkoolClient
) -> None:
    service.on("update", answer(b" " * (LARGEST_BODY + 1)))
    with pytest.raises(ServerFault, match="more than"):
        await client.update("1", IMAGE, FACE)


async def test_the_services_message_is_cut_cleaned_and_redacted(
    service: "Service", client: AkoolClient
) -> None:
    logs.conceal("sesame-open-now")
    message = "no\x1b[31m\r\nway\u202e " + "x" * 180 + "sesame-open-now" + "y" * 5000
    service.on("update", {"code": 1003, "msg": message})
    with pytest.raises(RequestRefused) as caught:
        await client.update("1", IMAGE, FACE)
    text = str(caught.value)
    assert text.isprintable()
    assert "sesame" not in text
    assert len(text) < 400


async def test_a_closed_port_is_unreachable_and_never_sent(
    http: HttpClient, unused_tcp_port: int
) -> None:
    client = AkoolClient(f"http://127.0.0.1:{unused_tcp_port}", ApiKey("the-key"), http)
    with pytest.raises(ServiceUnreachable) as caught:
        await client.create(IMAGE, FACE)
    assert not caught.value.sent
    assert never_acted_on(caught.value)


@pytest.mark.parametrize(
    ("reply", "times"),
    [
        (answer(b"{}", 429), 3),
        ({"code": 1005}, 3),
        (answer(b'{"code": 1015}', 500), 3),
        ({"code": 1016}, 3),
        ({"code": 4711}, 1),
        (answer(b'{"code": 504}', 504), 1),
        (answer(b"<html>", 502), 1),
        (cut, 1),
        (close_at_once, 1),
        ({"code": 1000, "data": {}}, 1),
        ({"code": 1104}, 1),
        ({"code": 1003}, 1),
    ],
)
async def test_create_is_sent_again_only_if_it_certainly_did_nothing(
    service: "Service", client: AkoolClient, reply: Any, times: int
) -> None:
    service.on("create", reply)
    with pytest.raises(ServiceError):
        await repeated_if_not_acted_on(client.create, IMAGE, FACE)
    assert service.count("create") == times


async def test_create_returns_the_session_that_the_service_made(
    service: "Service", client: AkoolClient
) -> None:
    session = await client.create(IMAGE, FACE)
    session.check()
    assert service.open == {session.id}
    call = service.calls[0]
    assert call.headers["x-api-key"] == "the-key-of-the-tests"
    assert call.body == {"sourceImage": [{"path": IMAGE, "opts": FACE}]}


@pytest.mark.parametrize(
    "reply",
    [
        {"code": 1000, "data": {"_id": "1"}},
        {"code": 1016, "data": {"_id": "1"}},
        {"data": {"_id": "1"}},
        answer(b'{"code": 1016, "data": {"_id": "1"}}', 500),
        answer(b'{"data": {"_id": "1"}}', 402),
    ],
)
async def test_create_returns_the_id_even_if_the_rest_is_wrong(
    service: "Service", client: AkoolClient, reply: Any
) -> None:
    service.on("create", reply)
    session = await client.create(IMAGE, FACE)
    assert session.id == "1"
    with pytest.raises(ServiceError):
        session.check()


@pytest.mark.parametrize(
    "reply",
    [
        {"error_code": 1, "error_msg": "no face in image"},
        {"error_code": 3, "error_msg": "Download failed"},
        {"error_code": 1003, "error_msg": "?"},
        {"code": 1008, "msg": "?"},
        answer(b'{"message": "cannot read the picture"}', 400),
    ],
)
async def test_detect_that_refuses_the_image_rejects_the_face(
    service: "Service", client: AkoolClient, reply: Any
) -> None:
    service.on("detect_faces", reply)
    with pytest.raises(FaceRejected):
        await client.detect_faces(IMAGE)
    assert service.count("detect_faces") == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({"code": 1101}, CredentialsRefused),
        ({"error_code": 7, "error_msg": "internal"}, ServerFault),
        (answer(b"the image service is down", 503), ServerFault),
        (answer(b'{"msg": "face service down"}', 503), ServerFault),
        ({"error_code": 0}, ServerFault),
    ],
)
async def test_detect_that_fails_otherwise_does_not_blame_the_face(
    service: "Service", client: AkoolClient, reply: Any, error: type[ServiceError]
) -> None:
    service.on("detect_faces", reply)
    with pytest.raises(error) as caught:
        await client.detect_faces(IMAGE)
    assert type(caught.value) is error


async def test_create_refused_for_its_image_rejects_the_face(
    service: "Service", client: AkoolClient
) -> None:
    service.on("create", {"code": 1003, "msg": "landmarks do not match the face"})
    with pytest.raises(FaceRejected):
        await client.create(IMAGE, FACE)


async def test_a_temporary_failure_is_retried(service: "Service", client: AkoolClient) -> None:
    service.on("detect_faces", answer(b"", 503), cut, {"error_code": 0, "landmarks_str": FACE})
    assert [face.landmarks for face in await client.detect_faces(IMAGE)] == [FACE]


async def test_a_retry_after_is_waited_for(service: "Service", client: AkoolClient) -> None:
    service.on("update", answer(b"", 429, retry_after="0.3"), {"code": 1000})
    with stamina.set_testing(False):
        began = time.monotonic()
        await client.update("1", IMAGE, FACE)
    assert 0.3 <= time.monotonic() - began < 1.5


async def test_a_retry_after_that_is_too_long_is_left_to_the_caller(
    service: "Service", client: AkoolClient
) -> None:
    service.on("update", answer(b"", 429, retry_after="3600"))
    with pytest.raises(Throttled) as caught:
        await client.update("1", IMAGE, FACE)
    assert caught.value.retry_after == 3600.0
    assert service.count("update") == 1


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_an_unreadable_retry_after_is_none(
    service: "Service", client: AkoolClient, value: str
) -> None:
    service.on("update", answer(b"", 429, retry_after=value))
    with pytest.raises(Throttled) as caught:
        await client.update("1", IMAGE, FACE)
    assert caught.value.retry_after is None


def test_only_what_is_retryable_is_repeated() -> None:
    assert worth_repeating(ServerFault("x")) is True
    assert worth_repeating(Throttled("x", retry_after=2.5)) == 2.5
    assert worth_repeating(Throttled("x", retry_after=LONGEST_WAIT + 1)) is False
    assert worth_repeating(QuotaExhausted("x")) is False
    assert worth_repeating(KeyError("x")) is False


async def test_a_token_is_requested_once_and_kept(service: "Service", http: HttpClient) -> None:
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http)
    await asyncio.gather(*(client.credit() for _ in range(5)))
    assert service.count("getToken") == 1
    assert service.calls[0].body == {"clientId": "me", "clientSecret": "my-secret"}
    assert service.calls[-1].headers["authorization"] == "Bearer bearer-of-the-tests"
    assert "x-api-key" not in service.calls[-1].headers


async def test_a_token_near_its_end_is_renewed(service: "Service", http: HttpClient) -> None:
    now = 1000.0
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http, wall=lambda: now)
    service.on("getToken", {"token": "first-token", "expire": 600}, {"token": "second-token"})
    await client.credit()
    now += 539.0
    await client.credit()
    assert service.count("getToken") == 1
    now += 2.0
    await client.credit()
    assert service.calls[-1].headers["authorization"] == "Bearer second-token"


@pytest.mark.parametrize("refusal", [{"code": 1101}, answer(b"", 401), answer(b"{}", 401)])
async def test_a_refused_token_is_requested_again_once(
    service: "Service", http: HttpClient, refusal: Any
) -> None:
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http)
    service.on("create", refusal, service.session())
    (await client.create(IMAGE, FACE)).check()
    assert (service.count("getToken"), service.count("create")) == (2, 2)


async def test_a_token_refused_twice_is_an_error(service: "Service", http: HttpClient) -> None:
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http)
    service.on("create", {"code": 1101})
    with pytest.raises(CredentialsRefused):
        await client.create(IMAGE, FACE)
    assert (service.count("getToken"), service.count("create")) == (2, 2)


async def test_a_refused_key_is_not_tried_again(service: "Service", client: AkoolClient) -> None:
    service.on("create", {"code": 1101})
    with pytest.raises(CredentialsRefused):
        await client.create(IMAGE, FACE)
    assert service.count("create") == 1


async def test_a_login_whose_answer_is_lost_is_repeated_before_create(
    service: "Service", http: HttpClient
) -> None:
    client = AkoolClient(service.url, ClientSecret("me", "my-secret"), http)
    service.on("getToken", cut, answer(b"", 502), {"token": "third-token"})
    (await client.create(IMAGE, FACE)).check()


async def test_status_is_looked_up(service: "Service", client: AkoolClient) -> None:
    session = await client.create(IMAGE, FACE)
    assert await client.status(session.id) is Status.PROCESSING
    service.on("info", {"code": 1000, "data": {"status": "4"}})
    assert await client.status(session.id) is Status.FAILED


async def test_a_newer_token_is_returned(service: "Service", client: AkoolClient) -> None:
    service.on("info", {"code": 1000, "data": {"front_rtc_token": "007eJx-a-newer-one"}})
    token = await client.fresh_token("0")
    assert token is not None
    assert token.get_secret_value() == "007eJx-a-newer-one"


@pytest.mark.parametrize(
    "reply",
    [
        {"code": 1000, "data": {"faceswap_status": 2}},
        {"code": 1000, "data": {"front_rtc_token": ["x"]}},
        {"code": 404, "msg": "Not Found"},
    ],
)
async def test_a_service_without_a_newer_token_is_no_error(
    service: "Service", client: AkoolClient, reply: dict[str, object]
) -> None:
    service.on("info", reply)
    assert await client.fresh_token("0") is None


@pytest.mark.parametrize(
    "reply",
    [answer(b"Cannot POST", 404), answer(b'{"code": 404}', 404), {"code": 404}, answer(b"", 405)],
)
async def test_a_missing_status_look_up_is_none_and_remembered(
    service: "Service", client: AkoolClient, reply: Any
) -> None:
    service.on("info", reply)
    assert [await client.status("1"), await client.status("1")] == [None, None]
    assert service.count("info") == 1


@pytest.mark.parametrize(
    "reply", [answer(b"", 503), cut, {"code": 1000}, {"code": 1000, "data": {"status": 9}}]
)
async def test_a_failed_status_look_up_is_an_error_sent_once(
    service: "Service", client: AkoolClient, reply: Any
) -> None:
    service.on("info", reply)
    with pytest.raises((ServerFault, ServiceUnreachable)):
        await client.status("1")
    assert service.count("info") == 1


async def test_a_session_unknown_at_close_counts_as_closed(client: AkoolClient) -> None:
    await client.close("../../etc/passwd")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(b"Not Found", 404), RequestRefused),
        ({"code": 1009}, RequestRefused),
        ({"code": 1101}, CredentialsRefused),
        ({}, ServerFault),
        (answer(b"<html>", 200), ServerFault),
    ],
)
async def test_a_close_that_was_not_confirmed_is_an_error(
    service: "Service", client: AkoolClient, reply: Any, error: type[ServiceError]
) -> None:
    service.on("close", reply)
    with pytest.raises(error):
        await client.close("1", within=2.0)


async def test_close_is_tried_until_it_is_confirmed(
    service: "Service", client: AkoolClient
) -> None:
    session = await client.create(IMAGE, FACE)
    replies: list[Any] = [cut, answer(b"", 502), {"code": 1005}, close_at_once]
    service.on("close", *replies, {"code": 1000})
    with stamina.set_testing(True, attempts=10, cap=True):
        await client.close(session.id, within=5.0)
    assert service.count("close") == 5


@pytest.mark.parametrize("reply", [drip, answer(b"", 502)])
async def test_close_ends_at_its_deadline_with_the_reason(
    service: "Service",
    client: AkoolClient,
    reply: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    service.on("close", reply)
    with stamina.set_testing(False):
        began = time.monotonic()
        with pytest.raises((ServerFault, ServiceUnreachable)):
            await client.close("1", within=0.5)
        assert 0.4 < time.monotonic() - began < 1.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1e999", True, None, [], "much"])
async def test_a_credit_that_is_no_amount_is_unknown(
    service: "Service", client: AkoolClient, value: object
) -> None:
    service.on("credit", {"code": 1000, "data": {"credit": value}})
    assert await client.credit() is None


async def test_a_key_is_checked_by_reading_the_credit(
    service: "Service", client: AkoolClient
) -> None:
    await client.check_credentials()
    assert [call.name for call in service.calls] == ["credit"]


async def test_without_a_credit_call_a_key_is_checked_by_closing_an_impossible_session(
    service: "Service", client: AkoolClient
) -> None:
    service.on("credit", answer(b"", 404))
    await client.check_credentials()
    assert [call.name for call in service.calls] == ["credit", "close"]
    service.on("close", {"code": 1101})
    with pytest.raises(CredentialsRefused):
        await client.check_credentials()


async def test_a_wrong_base_url_does_not_count_as_good_credentials(
    service: "Service", client: AkoolClient
) -> None:
    service.on("credit", answer(b"", 404))
    service.on("close", answer(b"", 404))
    with pytest.raises(RequestRefused, match="base_url"):
        await client.check_credentials()


@pytest.mark.parametrize("reply", [{"code": 1101}, {"code": 1200}, answer(b"", 401)])
async def test_refused_credentials_are_reported(
    service: "Service", client: AkoolClient, http: HttpClient, reply: Any
) -> None:
    service.on("credit", reply)
    service.on("getToken", reply)
    for one in (client, AkoolClient(service.url, ClientSecret("me", "my-secret"), http)):
        with pytest.raises(CredentialsRefused):
            await one.check_credentials()
    assert service.open == set()


@pytest.mark.parametrize(
    ("reply", "credit"),
    [
        ({"code": 1000, "data": {"credit": 12}}, 12.0),
        ({"code": 1000, "data": {"credit": "12.5"}}, 12.5),
        ({"code": 1000, "data": {}}, None),
        ({"code": 1000, "data": {"credit": "many"}}, None),
        (answer(b"", 404), None),
    ],
)
async def test_credit_is_a_number_or_none(
    service: "Service", client: AkoolClient, reply: Any, credit: float | None
) -> None:
    service.on("credit", reply)
    assert await client.credit() == credit


async def test_an_update_of_a_session_that_is_gone_says_so(client: AkoolClient) -> None:
    with pytest.raises(SessionUnknown):
        await client.update("gone", IMAGE, FACE)
