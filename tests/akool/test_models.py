"""Answers of every known shape, and of unknown ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd import logs
from relayd.akool.credentials import ApiKey, ClientSecret, Token
from relayd.akool.error_codes import CREATE, DETECT, GET_TOKEN, read_body
from relayd.akool.models import Face, LiveSession, Status, read_faces
from relayd.errors import CredentialsRefused, ServerFault, ServiceError
from relayd.http.client import Answer

FACE = "249,510:460,516:343,657:351,739"
SIX = [[249, 510], [460, 516], [343, 657], [351, 739], [254, 739], [449, 745]]
DATA = {
    "_id": "685ea0bb5aa150dd8b7116b1",
    "faceswap_status": 1,
    "front_user_id": "1",
    "algorithm_user_id": "3",
    "front_rtc_token": "007eJxTYFjuGvaue3C3VlOLdFmM5Uuf",
    "channel_id": "20250616032959101_8224",
    "app_id": "",
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=15,
)


@pytest.mark.parametrize(
    "body",
    [
        {"faces_obj": {"0": {"landmarks_str": [FACE], "landmarks": [SIX]}}},
        {"faces_obj": [{"landmarks_str": [FACE]}]},
        {"faces_obj": {"0": {"landmarks_str": [[FACE]]}}},
        {"faces_obj": {"0": {"landmarks_str": FACE}}},
        {"faces_obj": {"0": {"landmarks_str": [FACE.split(":")]}}},
        {"faces_obj": {"0": {"landmarks": [SIX]}}},
        {"faces_obj": {"0": {"landmarks": SIX, "landmarks_str": []}}},
        {"faces_obj": {"0": {"landmarks_str": [FACE]}, "1": {"landmarks_str": [FACE]}}},
        {"landmarks_str": [FACE]},
        {"landmarks_str": FACE},
        {"landmarks": [SIX]},
        {"landmarks": [[[249.2, 509.6], *SIX[1:]]]},
        {"data": {"landmarks_str": [[FACE]]}},
        {"data": {"faces_obj": {"0": {"landmarks_str": [" 249, 510:460,516 :343,657:351,739"]}}}},
    ],
)
def test_one_face_is_read_from_every_known_shape(body: dict[str, Any]) -> None:
    assert read_faces(body) == [Face(FACE)]


def test_points_are_those_of_the_text() -> None:
    assert Face(FACE).points == ((249, 510), (460, 516), (343, 657), (351, 739))


def test_several_faces_keep_their_order() -> None:
    other = "1,2:3,4:5,6:7,8"
    listed = {"0": {"landmarks_str": [FACE]}, "1": {"landmarks_str": [other]}}
    assert [face.landmarks for face in read_faces({"faces_obj": listed})] == [FACE, other]


@pytest.mark.parametrize(
    "body", [{"faces_obj": {}}, {"faces_obj": []}, {"faces_obj": None}, {"landmarks_str": []}]
)
def test_an_empty_answer_is_no_face(body: dict[str, Any]) -> None:
    assert read_faces(body) == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"faces_obj": "none"},
        {"faces_obj": {"0": 7}},
        {"landmarks_str": ["here"]},
        {"landmarks_str": ["1,2:3,4"]},
        {"landmarks": [[1, 2], [3, float("nan")], [5, 6], [7, 8]]},
        {"landmarks": [[[[[[1, 2], [3, 4], [5, 6], [7, 8]]]]]]},
    ],
)
def test_unreadable_landmarks_are_the_services_fault(body: dict[str, Any]) -> None:
    with pytest.raises(ServerFault):
        read_faces(body)


def test_a_create_answer_is_read_whole() -> None:
    session = LiveSession.read(DATA)
    assert session is not None
    session.check()
    assert session.status is Status.QUEUING
    assert session.front_rtc_token.get_secret_value() == DATA["front_rtc_token"]


def test_ids_may_be_numbers() -> None:
    session = LiveSession.read({**DATA, "front_user_id": 1, "algorithm_user_id": 3})
    assert session is not None
    session.check()
    assert (session.front_user_id, session.algorithm_user_id) == ("1", "3")


def test_the_token_is_in_no_repr_and_no_log() -> None:
    session = LiveSession.read(DATA)
    token = str(DATA["front_rtc_token"])
    assert token not in repr(session)
    assert token not in logs.redact(f"joined with {token}")


@pytest.mark.parametrize(
    "field", ["channel_id", "front_rtc_token", "front_user_id", "algorithm_user_id"]
)
@pytest.mark.parametrize("value", [None, "", {}, True, "a\nb", "x" * 5000])
def test_a_session_without_a_needed_field_exists_but_names_it(field: str, value: object) -> None:
    session = LiveSession.read({**DATA, field: value})
    assert session is not None
    assert session.id == DATA["_id"]
    with pytest.raises(ServerFault, match=field):
        session.check()


@pytest.mark.parametrize("engine", [0, "0", "1"])
def test_a_swap_engine_under_our_own_id_is_a_flaw_since_its_pictures_would_be_our_own(
    engine: object,
) -> None:
    session = LiveSession.read(DATA | {"algorithm_user_id": engine})
    assert session is not None
    with pytest.raises(ServerFault, match="algorithm_user_id"):
        session.check()


def test_a_missing_app_id_is_no_flaw() -> None:
    session = LiveSession.read({key: value for key, value in DATA.items() if key != "app_id"})
    assert session is not None
    session.check()
    assert session.app_id == ""


@pytest.mark.parametrize("value", [5, 0, "soon", None, [], 1.5, True, float("inf")])
def test_an_unknown_status_is_none(value: object) -> None:
    assert Status.read(value) is None


@given(st.one_of(ANY_JSON, st.fixed_dictionaries(dict.fromkeys(DATA, ANY_JSON))))
def test_no_create_answer_breaks_the_reader(data: object) -> None:
    session = LiveSession.read(data)
    if session is not None:
        assert session.id
        if session.flaw is None:
            assert session.channel_id
            assert session.front_rtc_token.get_secret_value()


@given(
    st.one_of(
        st.fixed_dictionaries({"faces_obj": ANY_JSON}),
        st.fixed_dictionaries(
            {
                "faces_obj": st.lists(
                    st.dictionaries(st.sampled_from(["landmarks", "landmarks_str"]), ANY_JSON)
                )
            }
        ),
        st.fixed_dictionaries({"landmarks": ANY_JSON, "landmarks_str": ANY_JSON}),
    )
)
def test_no_detect_answer_breaks_the_reader(body: dict[str, Any]) -> None:
    try:
        faces = read_faces(body)
    except ServerFault:
        return
    assert all(len(face.points) >= 4 for face in faces)


@given(
    st.sampled_from([CREATE, DETECT, GET_TOKEN]),
    st.integers(200, 599),
    st.one_of(
        st.binary(max_size=60),
        ANY_JSON.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries({"code": ANY_JSON, "msg": ANY_JSON, "data": ANY_JSON}).map(
            lambda value: json.dumps(value).encode()
        ),
    ),
)
def test_no_answer_breaks_the_reading_of_error_codes(
    endpoint: Any, status: int, content: bytes
) -> None:
    body, fault = read_body(endpoint, Answer(status, {}, content))
    assert isinstance(body, dict)
    assert fault is None or isinstance(fault, ServiceError)
    if status >= 300:
        assert fault is not None
    if fault is not None:
        assert str(fault).isprintable()
        assert len(str(fault)) < 500


@pytest.mark.parametrize(
    ("body", "renew_at"),
    [
        ({"code": 1000, "data": {"token": "abcdefgh", "expire": 600}}, 1540.0),
        ({"code": 1000, "token": "abcdefgh", "expire": "600"}, 1540.0),
        ({"token": "abcdefgh"}, float("inf")),
        ({"data": {"token": "abcdefgh", "expire": 1.8e9}}, 1.8e9 - 60),
        ({"data": {"token": "abcdefgh", "expire": 1.8e12}}, 1.8e9 - 60),
        ({"data": {"token": "abcdefgh", "expire": "never"}}, float("inf")),
        ({"data": {"token": "abcdefgh", "expire": -1}}, float("inf")),
    ],
)
def test_a_token_is_read_from_both_shapes(body: dict[str, Any], renew_at: float) -> None:
    token = Token.read(body, lambda: 1000.0)
    assert token.text == "abcdefgh"
    assert token.renew_at == renew_at
    assert "abcdefgh" not in repr(token)


@pytest.mark.parametrize("token", [None, "", 7, "a\r\nx: y", "a b", "ü"])
def test_a_token_that_fits_no_header_is_refused(token: object) -> None:
    with pytest.raises(ServerFault, match="token"):
        Token.read({"data": {"token": token}})


@pytest.mark.parametrize("key", ["", "a\r\nx-evil: 1", "key with spaces", "schlüssel"])
def test_a_key_that_fits_no_header_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(CredentialsRefused, match="api_key") as caught:
        ApiKey(key)
    assert not key or key not in str(caught.value)


def test_credentials_show_no_secret() -> None:
    assert "sesame-open" not in repr([ApiKey("sesame-open"), ClientSecret("id", "sesame-open")])
