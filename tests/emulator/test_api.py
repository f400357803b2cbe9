import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil
import pytest

from relayd.emulator.account import AccountRules
from relayd.emulator.images import LARGEST_IMAGE
from relayd.emulator.sessions import SessionRules

OPTS = "262,175:363,175:313,215:272,279"

DOCUMENTED_SESSION = {
    "_id": "684f8fb744b8795862e45cbe",
    "faceswap_status": 1,
    "front_user_id": "1",
    "algorithm_user_id": "3",
    "front_rtc_token": "007eJxTYFj",
    "channel_id": "20250616032959101_8224",
    "app_id": "",
}
DOCUMENTED_FACES = {
    "landmarks": [[[249, 510], [460, 516], [343, 657], [351, 739], [254, 739], [449, 745]]],
    "landmarks_str": ["249,510:460,516:343,657:351,739"],
    "region": [[150, 261, 437, 661]],
    "frame_time": None,
    "crop_region": [[3, 0, 731, 1183]],
    "crop_landmarks": ["246,510:457,516:340,657:348,739"],
    "face_urls": ["https://d5v2vcqcwe9y5.cloudfront.net/qvjssv8fna0o.jpg"],
}


def shape_of(value: Any) -> Any:
    """Describe a JSON value only by its keys, lengths and types."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape_of(inner) for inner in value]
    return type(value).__name__


async def create_body(emulator: Any, image: bytes) -> dict[str, Any]:
    return {"sourceImage": [{"path": await emulator.upload(image), "opts": OPTS}]}


async def test_create_answers_as_the_documented_example(emulator: Any, portrait: bytes) -> None:
    answer = await emulator.call("create", await create_body(emulator, portrait))
    assert list(answer) == ["code", "msg", "data"]
    assert (answer["code"], answer["msg"]) == (1000, "OK")
    data = answer["data"]
    assert shape_of(data) == shape_of(DOCUMENTED_SESSION)
    assert data["faceswap_status"] == 1
    assert re.fullmatch(r"[0-9a-f]{24}", data["_id"])
    assert re.fullmatch(r"\d{17}_\d{4}", data["channel_id"])
    assert data["front_rtc_token"].startswith("007eJx")
    assert (data["front_user_id"], data["algorithm_user_id"], data["app_id"]) == ("1", "3", "")


async def test_a_session_is_processing_after_its_queue_time(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any], portrait: bytes
) -> None:
    emulator = client_of(start_emulator(sessions=SessionRules(queue_seconds=0.6)).url)
    data = (await emulator.call("create", await create_body(emulator, portrait)))["data"]
    info = (await emulator.call("info", {"_id": data["_id"]}))["data"]
    assert info == data
    await emulator.until_status(data["_id"], 2)
    assert (await emulator.session(data["_id"]))["age_seconds"] >= 0.6


async def test_update_and_close_answer_without_data(
    emulator: Any, portrait: bytes, other_portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    update = {"_id": session["_id"], **await create_body(emulator, other_portrait)}
    assert await emulator.call("update", update) == {"code": 1000, "msg": "OK"}
    assert await emulator.call("close", {"_id": session["_id"]}) == {"code": 1000, "msg": "OK"}
    assert (await emulator.call("info", {"_id": session["_id"]}))["data"]["faceswap_status"] == 3
    assert (await emulator.call("update", update))["code"] == 1008


async def test_closing_twice_is_confirmed_twice(emulator: Any, portrait: bytes) -> None:
    session = await emulator.create(portrait)
    for _ in range(2):
        assert (await emulator.call("close", {"_id": session["_id"]}))["code"] == 1000
    state = await emulator.state()
    assert state["sessions"] == []
    assert (await emulator.session(session["_id"]))["end_reason"] == "closed"


async def test_detect_answers_as_the_documented_example(emulator: Any, portrait: bytes) -> None:
    url = await emulator.upload(portrait)
    body = {"url": url, "single_face": False, "return_face_url": True, "num_frames": 10}
    answer = await emulator.call("detect_faces", body)
    assert list(answer) == ["error_code", "error_msg", "faces_obj"]
    assert (answer["error_code"], answer["error_msg"]) == (0, "SUCCESS")
    faces = answer["faces_obj"]["0"]
    assert shape_of(faces) == shape_of(DOCUMENTED_FACES)
    points = faces["landmarks"][0]
    assert faces["landmarks_str"][0] == ":".join(f"{x},{y}" for x, y in points[:4])
    left, top, width, height = faces["region"][0]
    assert all(left <= x <= left + width and top <= y <= top + height for x, y in points)
    crop = await emulator.http.request("GET", faces["face_urls"][0])
    assert (crop.status, crop.headers["content-type"]) == (200, "image/png")
    again = await emulator.call("detect_faces", {"url": faces["face_urls"][0]})
    found = again["faces_obj"]["0"]["landmarks"][0]
    cropped = [point.split(",") for point in faces["crop_landmarks"][0].split(":")]
    offsets = [
        abs(a - int(b)) for one, two in zip(found, cropped, strict=False)
        for a, b in zip(one, two, strict=True)
    ]  # fmt: skip
    assert max(offsets) <= 0.05 * width


async def test_detect_finds_nothing_without_a_face(emulator: Any, no_face: bytes) -> None:
    answer = await emulator.call("detect_faces", {"url": await emulator.upload(no_face)})
    assert answer["error_code"] == 0
    faces = answer["faces_obj"]["0"]
    assert faces.keys() == DOCUMENTED_FACES.keys()
    assert faces["landmarks"] == faces["landmarks_str"] == faces["region"] == []


async def test_a_token_of_get_token_authorises_the_other_calls(emulator: Any) -> None:
    pair = {"clientId": "id", "clientSecret": "secret"}
    answer = await emulator.call("getToken", pair, content_type="application/json")
    assert shape_of(answer) == {
        "code": "int",
        "msg": "str",
        "data": {"token": "str", "expire": "int"},
    }
    bearer = f"Bearer {answer['data']['token']}"
    answer = await emulator.call("close", {"_id": "0" * 24}, authorization=bearer)
    assert answer["code"] == 1008
    await emulator.fault(fault="expire_tokens")
    answer = await emulator.call("close", {"_id": "0" * 24}, authorization=bearer)
    assert answer["code"] == 1101


async def test_authorization_takes_precedence_over_the_api_key(emulator: Any) -> None:
    both = {"authorization": "Bearer none-of-ours", "x_api_key": "good"}
    assert (await emulator.call("close", {"_id": "x"}, **both))["code"] == 1101
    empty = {"authorization": "", "x_api_key": "good"}
    assert (await emulator.call("close", {"_id": "x"}, **empty))["code"] == 1008


@pytest.mark.parametrize("name", ["detect_faces", "create", "update", "close", "info"])
async def test_no_call_works_without_authorization(emulator: Any, name: str) -> None:
    answer = await emulator.call(name, {}, content_type="application/json")
    assert (answer["code"], "data" in answer) == (1102, False)


async def test_only_the_keys_that_were_set_are_accepted(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any]
) -> None:
    account = AccountRules(api_keys=("one", "two"), client_id="id", client_secret="secret")
    emulator = client_of(start_emulator(account).url)
    for key, code in (("one", 1008), ("two", 1008), ("three", 1101)):
        assert (await emulator.call("close", {"_id": "x"}, x_api_key=key))["code"] == code
    for secret, code in (("secret", 1000), ("other", 1101)):
        answer = await emulator.call("getToken", {"clientId": "id", "clientSecret": secret})
        assert answer["code"] == code
    assert "two" not in repr(account)
    assert "secret" not in repr(account).replace("client_secret", "")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("getToken", {"clientId": "id"}),
        ("getToken", {"clientId": "", "clientSecret": "secret"}),
        ("getToken", []),
        ("create", {}),
        ("create", {"sourceImage": []}),
        ("create", {"sourceImage": "https://example.org/face.png"}),
        ("create", {"sourceImage": [{"path": "https://example.org/face.png"}]}),
        ("create", {"sourceImage": [{"path": "http://localhost/a.png", "opts": "eye,nose"}]}),
        ("create", {"sourceImage": [{"path": "file:///etc/passwd", "opts": OPTS}]}),
        ("close", {}),
        ("close", {"_id": 7}),
        ("info", {"_id": ""}),
        ("update", {"sourceImage": []}),
    ],
)
async def test_a_missing_or_malformed_parameter_is_1003(
    emulator: Any, name: str, body: object
) -> None:
    answer = await emulator.call(name, body)
    assert answer["code"] == 1003
    assert answer["msg"]


async def test_a_body_that_cannot_be_sent_back_is_1003(emulator: Any) -> None:
    answer = await emulator.http.request(
        "POST",
        emulator.url + "/interface/detect-api/detect_faces",
        content=b'{"url": "http://\\ud800/"}',
        headers={"x-api-key": "key"},
    )
    assert (answer.status, answer.json()["error_code"]) == (200, 1003)


async def test_a_body_that_is_no_json_is_1003(emulator: Any) -> None:
    answer = await emulator.http.request(
        "POST",
        f"{emulator.url}/api/open/v3/faceswap/live/create",
        content=b"{" * 5000,
        headers={"x-api-key": "k"},
    )
    assert answer.json()["code"] == 1003


@pytest.mark.parametrize("name", ["update", "close", "info"])
async def test_an_unknown_session_is_1008(emulator: Any, portrait: bytes, name: str) -> None:
    body = {"_id": "0" * 24, **await create_body(emulator, portrait)}
    assert (await emulator.call(name, body))["code"] == 1008


async def test_without_credit_a_create_is_1104_and_the_quota_says_zero(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any], portrait: bytes
) -> None:
    rules = AccountRules(credit=0.5, credit_per_minute=600.0)
    emulator = client_of(start_emulator(rules).url)
    session = await emulator.create(portrait)
    answer = await emulator.get("/api/open/v3/faceswap/quota/info", **{"x-api-key": "k"})
    assert answer.json()["data"]["credit"] == 0.5
    await emulator.call("close", {"_id": session["_id"]})
    used = (await emulator.session(session["_id"]))["age_seconds"] * 10
    left = (await emulator.state())["credit"]
    assert left == pytest.approx(max(0.0, 0.5 - used), abs=0.2)
    while (await emulator.state())["credit"] > 0:
        session = await emulator.create(portrait)
        await emulator.call("close", {"_id": session["_id"]})
    answer = await emulator.call("create", await create_body(emulator, portrait))
    assert answer == {"code": 1104, "msg": "Insufficient quota"}


class Images(BaseHTTPRequestHandler):
    """A web server with bad images."""

    def do_GET(self) -> None:
        body = {"/large": b"\0" * (LARGEST_IMAGE + 1), "/text": b"no image"}.get(self.path, b"")
        self.send_response({"/loop": 302, "/none": 404}.get(self.path, 200))
        if self.path == "/loop":
            self.send_header("Location", "/loop")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Images) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/none", "HTTP 404"),
        ("/loop", "redirects"),
        ("/large", "bytes"),
        ("/text", "the image is in no format that can be read"),
    ],
)
async def test_an_image_that_cannot_be_fetched_is_1003_with_the_reason(
    emulator: Any, web: str, path: str, text: str
) -> None:
    body = {"sourceImage": [{"path": web + path, "opts": OPTS}]}
    answer = await emulator.call("create", body)
    assert answer["code"] == 1003
    assert text in answer["msg"]
    assert "image" in answer["msg"]
    answer = await emulator.call("detect_faces", {"url": web + path})
    assert (answer["error_code"], answer["faces_obj"]) == (1003, {})
    assert text in answer["error_msg"]
    assert (await emulator.state())["sessions"] == []


async def test_an_unreachable_image_is_1003(emulator: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    body = {"sourceImage": [{"path": f"http://127.0.0.1:{port}/a.png", "opts": OPTS}]}
    answer = await emulator.call("create", body)
    assert answer["code"] == 1003
    assert "cannot be fetched" in answer["msg"]


@pytest.mark.parametrize("url", ["http://[::1", "http://a\\u0000b/"])
async def test_an_invalid_image_url_is_1003(emulator: Any, url: str) -> None:
    body = f'{{"sourceImage": [{{"path": "{url}", "opts": "{OPTS}"}}]}}'
    create = emulator.url + "/api/open/v3/faceswap/live/create"
    answer = await emulator.http.request("POST", create, content=body, headers={"x-api-key": "key"})
    assert answer.status == 200
    assert answer.json()["code"] == 1003
    assert "cannot be fetched" in answer.json()["msg"]


async def test_the_portrait_of_the_demo_exists_without_an_upload(emulator: Any) -> None:
    source = [{"path": emulator.url + "/emulator/images/portrait", "opts": OPTS}]
    assert (await emulator.call("create", {"sourceImage": source}))["code"] == 1000


async def test_a_page_with_dns_rebinding_sees_and_changes_nothing(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    foreign = {"host": "evil.example"}
    assert (await emulator.get("/emulator/state", **foreign)).status == 403
    assert (await emulator.post("/emulator/faults", {"fault": "stall"}, **foreign)).status == 403
    assert session["_id"] not in (await emulator.get("/", **foreign)).text
    assert (await emulator.get("/emulator/state", host="localhost:8700")).status == 200


async def test_a_face_image_without_a_face_is_1003(emulator: Any, no_face: bytes) -> None:
    answer = await emulator.call("create", await create_body(emulator, no_face))
    assert answer["code"] == 1003
    assert "no face" in answer["msg"]


async def test_a_session_that_is_not_joined_is_ended(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any], portrait: bytes
) -> None:
    rules = SessionRules(queue_seconds=0.05, join_timeout=0.5)
    emulator = client_of(start_emulator(sessions=rules).url)
    session = await emulator.create(portrait)
    await emulator.until_status(session["_id"], 3)
    assert (await emulator.session(session["_id"]))["end_reason"] == "abandoned"


async def test_a_session_ends_at_its_maximum_age(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any], portrait: bytes
) -> None:
    rules = SessionRules(queue_seconds=0.05, longest=0.5)
    emulator = client_of(start_emulator(sessions=rules).url)
    session = await emulator.create(portrait)
    await emulator.until_status(session["_id"], 3)
    assert (await emulator.session(session["_id"]))["end_reason"] == "too_old"


async def test_an_upload_that_is_no_image_is_refused(emulator: Any) -> None:
    url = emulator.url + "/emulator/images"
    png_type = {"content-type": "image/png"}
    answer = await emulator.http.request("POST", url, content=b"GIF", headers=png_type)
    assert answer.status == 400
    assert "image" in answer.json()["error"]
    answer = await emulator.http.request("POST", url, content=b"GIF89a")
    assert answer.status == 400
    assert "Content-Type" in answer.json()["error"]


async def test_the_page_shows_how_to_point_a_relay_at_it_and_no_token(
    emulator: Any, portrait: bytes
) -> None:
    session = await emulator.create(portrait)
    await emulator.fault(fault="stall", seconds=60)
    page = (await emulator.get("/")).text
    assert f'base_url = "{emulator.url}"' in page
    assert "/rtc/{channel_id}/{front_user_id}/whip" in page
    assert session["_id"] in page
    assert "stall" in page
    assert session["front_rtc_token"] not in page + str(await emulator.state())


async def test_other_machines_see_neither_sessions_nor_faults_unless_allowed(
    start_emulator: Callable[..., Any], client_of: Callable[[str], Any], portrait: bytes
) -> None:
    address = next(
        (
            one.address
            for name in psutil.net_if_addrs().values()
            for one in name
            if one.family == socket.AF_INET and not one.address.startswith("127.")
        ),
        None,
    )
    if address is None:
        pytest.skip("this machine has no address but loopback")
    for anywhere in (False, True):
        emulator = start_emulator(host="0.0.0.0", admin_anywhere=anywhere)
        here = client_of(emulator.url)
        session = await here.create(portrait)
        there = client_of(emulator.url.replace("127.0.0.1", address))
        assert (await there.get("/emulator/state")).status == (200 if anywhere else 403)
        answer = await there.post("/emulator/faults", {"fault": "stall"})
        assert answer.status == (201 if anywhere else 403)
        page = await there.get("/")
        assert page.status == 200
        assert (session["_id"] in page.text) is anywhere
        assert (await there.call("close", {"_id": session["_id"]}))["code"] == 1000
