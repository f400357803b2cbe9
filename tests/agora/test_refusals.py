"""Joins that fail, and their errors."""

import time
from collections.abc import Callable

import pytest

from relayd.errors import JoinFailed, JoinRefused, LinkError, LinkForbidden, LinkLost, LinkStalled
from relayd.rtc.agora.error_codes import REFUSAL_PAUSE
from relayd.rtc.link import LinkEventKind
from tests.agora.cloud import Cloud
from tests.agora.side import TOKEN, Side, names_of
from tests.agora.wire import Reason

REFUSING = {3, 6, 7, 8, 9, 10, 20, 21, 22, 24}
FORBIDDING = {3, 6, 21, 24}
PAUSING = {7, 8, 10, 20, 22}


def test_each_reason_of_a_refused_join_is_reported_as_text_with_its_error(
    agora: Cloud, start: Callable[..., Side]
) -> None:
    side = start()
    for reason in sorted(REFUSING | {2, 4, 5, 14, 16, 19}):
        agora.refuse_joins(reason)
        side.events.clear()
        side.worker.join(side.target)
        is_final = reason in REFUSING
        fault = side.wait_for_event(LinkEventKind.REFUSED if is_final else LinkEventKind.LOST).error
        wanted = LinkForbidden if reason in FORBIDDING else JoinRefused if is_final else LinkLost
        assert type(fault) is wanted
        assert f"reason {reason}" in str(fault)
        assert TOKEN not in str(fault)
        assert fault.retry_after == (REFUSAL_PAUSE if reason in PAUSING else None)


def test_a_wrong_token_is_refused(agora: Cloud, start: Callable[..., Side]) -> None:
    side = start(token="forged")
    side.worker.join(side.target)
    assert isinstance(side.wait_for_event(LinkEventKind.REFUSED).error, JoinRefused)


def test_connects_own_0_is_no_success(agora: Cloud, start: Callable[..., Side]) -> None:
    agora.ignore_joins()
    side = start()
    side.worker.join(side.target)
    side.wait_for_event(LinkEventKind.READY)
    side.pump_until("the call", lambda: "rtc_conn_connect" in names_of(agora, side))
    time.sleep(0.5)
    assert LinkEventKind.JOINED not in side.kinds()


@pytest.mark.parametrize(
    ("call", "returned", "error"),
    [
        ("rtc_conn_connect", -8, JoinFailed),
        ("rtc_conn_connect", -110, JoinRefused),
        ("local_user_publish_video", -1, JoinFailed),
        ("local_video_track_set_video_encoder_config", -2, JoinRefused),
        ("rtc_conn_register_observer", -7, JoinFailed),
    ],
)
def test_a_call_that_the_sdk_refuses_ends_the_join_with_its_name(
    agora: Cloud, start: Callable[..., Side], call: str, returned: int, error: type[LinkError]
) -> None:
    agora.preset(fail={call: returned})
    side = start()
    side.worker.join(side.target)
    kind = LinkEventKind.LOST if error.retryable else LinkEventKind.REFUSED
    fault = side.wait_for_event(kind).error
    assert type(fault) is error
    assert f"returned {returned}" in str(fault)


def test_a_service_that_did_not_start_is_noticed_whatever_initialize_returns(
    agora: Cloud, start: Callable[..., Side]
) -> None:
    agora.preset(init=-7)  # over which the wrapper returns 0, or breaks
    side = start()
    side.worker.join(side.target)
    assert side.wait_for_event(LinkEventKind.LOST).error is not None
    assert "rtc_conn_connect" not in names_of(agora, side)


def test_an_engine_that_never_comes_ends_the_link_after_its_limit(
    start: Callable[..., Side],
) -> None:
    side = start(first_frame_timeout=1.0)
    side.worker.join(side.target)
    assert isinstance(side.wait_for_event(LinkEventKind.LOST).error, LinkStalled)


def test_a_link_that_has_failed_frees_its_connection(
    agora: Cloud, start: Callable[..., Side]
) -> None:
    agora.refuse_joins(Reason.LOST)
    side = start()
    side.worker.join(side.target)
    side.wait_for_event(LinkEventKind.LOST)
    side.pump_until("the end", lambda: "rtc_conn_destroy" in names_of(agora, side))
