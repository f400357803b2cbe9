import pytest

from relayd.errors import (
    JoinFailed,
    JoinRefused,
    LinkError,
    LinkForbidden,
    LinkLost,
    LinkStalled,
)
from relayd.rtc.agora import error_codes
from relayd.rtc.agora.events import (
    Connected,
    ConnectionFailed,
    ConnectionLost,
    Disconnected,
    PictureCame,
    Reconnected,
    Reconnecting,
    SdkError,
    SdkEvent,
    TokenEnded,
    TokenEnding,
    UserJoined,
    UserLeft,
)
from relayd.rtc.agora.progress import JOIN_TIMEOUT, RENEW_AT, Progress, Stage
from relayd.rtc.link import LinkEventKind

FIRST_FRAME, RECOVERY = 20.0, 15.0
ENGINE = "3"


def begun() -> Progress:
    return Progress(ENGINE, first_frame_timeout=FIRST_FRAME, recovery_timeout=RECOVERY, now=0.0)


def kinds(progress: Progress, event: SdkEvent, now: float = 1.0) -> list[LinkEventKind]:
    return [each.kind for each in progress.handle(event, now)]


def stage_of(progress: Progress) -> Stage:
    """Read it by a call, so that a type checker does not assume the earlier assertion."""
    return progress.stage


def live() -> Progress:
    progress = begun()
    kinds(progress, Connected())
    kinds(progress, PictureCame())
    progress.picture_at = 1.0
    return progress


def test_each_step_of_the_join_is_reported() -> None:
    progress = begun()
    assert stage_of(progress) is Stage.JOINING
    assert kinds(progress, Connected()) == [LinkEventKind.JOINED]
    assert stage_of(progress) is Stage.WAITING
    assert kinds(progress, PictureCame()) == [LinkEventKind.FIRST_PICTURE]
    assert stage_of(progress) is Stage.LIVE
    assert kinds(progress, PictureCame()) == []


def test_success_is_the_callback_and_without_it_the_join_has_failed() -> None:
    progress = begun()
    assert progress.check(JOIN_TIMEOUT - 0.1) == []
    with pytest.raises(JoinFailed):
        progress.check(JOIN_TIMEOUT)


def test_a_channel_without_the_swapped_user_is_left_after_the_first_frames_limit() -> None:
    progress = begun()
    kinds(progress, Connected(), 9.0)
    assert progress.check(9.0 + FIRST_FRAME - 0.1) == []
    with pytest.raises(LinkStalled, match="20 s"):
        progress.check(9.0 + FIRST_FRAME)


def test_a_key_frame_is_requested_each_second_until_a_picture_comes() -> None:
    progress = begun()
    assert not progress.wants_key_frame(0.0)
    kinds(progress, Connected())
    asked = [moment / 10 for moment in range(10, 51) if progress.wants_key_frame(moment / 10)]
    assert asked == [1.0, 2.0, 3.0, 4.0, 5.0]
    progress.picture_at = 5.5
    kinds(progress, PictureCame(), 5.5)
    assert not progress.wants_key_frame(6.4)


def test_a_live_link_without_pictures_requests_a_key_frame() -> None:
    progress = live()
    assert not progress.wants_key_frame(1.9)
    assert progress.wants_key_frame(2.1)
    assert not progress.wants_subscription(2.1)


def test_the_subscription_is_repeated_until_a_picture_comes() -> None:
    progress = begun()
    kinds(progress, Connected())
    assert [at for at in (1.0, 2.0, 3.4, 3.5, 6.0) if progress.wants_subscription(at)] == [
        1.0,
        3.5,
        6.0,
    ]
    kinds(progress, PictureCame(), 6.0)
    assert not progress.wants_subscription(60.0)


def test_a_broken_connection_is_reported_and_given_time() -> None:
    progress = live()
    assert kinds(progress, Reconnecting(2), 10.0) == [LinkEventKind.DEGRADED]
    assert kinds(progress, ConnectionLost(), 20.0) == [LinkEventKind.DEGRADED]
    assert progress.check(10.0 + RECOVERY - 0.1) == []
    with pytest.raises(LinkLost):
        progress.check(10.0 + RECOVERY)


def test_a_repaired_connection_is_reported_and_needs_a_key_frame() -> None:
    progress = live()
    kinds(progress, Reconnecting(2), 10.0)
    assert kinds(progress, Reconnected(), 12.0) == [LinkEventKind.RECOVERED]
    assert progress.wants_key_frame(12.0)
    assert progress.check(1000.0) == []


def test_a_swap_engine_that_came_back_counts_as_repaired_with_its_first_picture() -> None:
    progress = live()
    assert kinds(progress, UserLeft(ENGINE), 10.0) == [LinkEventKind.DEGRADED]
    assert kinds(progress, UserJoined(ENGINE), 12.0) == []
    assert progress.wants_subscription(12.0)
    assert progress.wants_key_frame(12.0)
    assert kinds(progress, PictureCame(), 12.5) == [LinkEventKind.RECOVERED]


def test_both_breaks_must_be_repaired() -> None:
    progress = live()
    kinds(progress, Reconnecting(2), 10.0)
    kinds(progress, UserLeft(ENGINE), 11.0)
    assert kinds(progress, Reconnected(), 12.0) == []
    assert kinds(progress, PictureCame(), 13.0) == [LinkEventKind.RECOVERED]


def test_other_users_are_ignored() -> None:
    progress = live()
    assert kinds(progress, UserLeft("77")) == []
    assert kinds(progress, UserJoined("77")) == []


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        *((reason, LinkLost) for reason in (2, 4, 5, 11, 14, 16, 19)),
        *((reason, JoinRefused) for reason in (7, 8, 9, 10, 20, 22)),
        *((reason, LinkForbidden) for reason in (3, 6, 21, 24)),
        (999, LinkLost),
    ],
)
@pytest.mark.parametrize("event", [ConnectionFailed, Disconnected])
def test_each_reason_ends_the_link_with_its_error(
    event: type[ConnectionFailed | Disconnected], reason: int, error: type[LinkError]
) -> None:
    with pytest.raises(error, match=f"reason {reason}") as raised:
        live().handle(event(reason), 2.0)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (17, JoinRefused),
        (101, LinkForbidden),
        (102, JoinRefused),
        (103, JoinFailed),
        (109, JoinRefused),
        (110, JoinRefused),
    ],
)
def test_a_reported_code_that_is_final_ends_the_link(code: int, error: type[LinkError]) -> None:
    with pytest.raises(error):
        begun().handle(SdkError(code, ""), 1.0)


@pytest.mark.parametrize("code", [101, 102, 109, 110])
def test_few_reported_codes_end_a_live_link(code: int) -> None:
    with pytest.raises(LinkError):
        live().handle(SdkError(code, ""), 1.0)


@pytest.mark.parametrize("code", [1, 2, 5, 14, 17, 103, 111, 112, 115, 12345])
def test_a_temporary_code_changes_nothing(code: int) -> None:
    assert kinds(live(), SdkError(code, "")) == []


def test_an_unexplained_refusal_causes_no_loop_of_billed_sessions() -> None:
    for reason in (7, 8, 10, 20, 22):
        end = error_codes.end_of(ConnectionFailed(reason), joining=True)
        assert end is not None
        assert end.retry_after == error_codes.REFUSAL_PAUSE


def test_the_error_of_a_refused_call_names_the_call_and_its_result() -> None:
    error = error_codes.error_of_call("connect", -8)
    assert "connect returned -8" in str(error)
    assert error.retryable
    assert isinstance(error_codes.error_of_call("renew_token", -110), JoinRefused)


def test_the_expiry_by_our_own_clock_is_reported_once() -> None:
    progress = live()
    progress.set_token_lifetime(100.0, now=0.0)
    assert progress.check(100 * RENEW_AT - 1) == []
    assert [each.kind for each in progress.check(100 * RENEW_AT)] == [LinkEventKind.TOKEN_EXPIRING]
    assert progress.check(99.0) == []
    progress.set_token_lifetime(100.0, now=99.0)
    assert progress.check(99.0 + 100 * RENEW_AT) != []


def test_a_token_that_should_have_expired_is_renewed_at_once() -> None:
    progress = live()
    progress.set_token_lifetime(-5.0, now=9.0)
    assert [each.kind for each in progress.check(9.0)] == [LinkEventKind.TOKEN_EXPIRING]


def test_the_servers_warning_is_reported_too() -> None:
    assert kinds(live(), TokenEnding()) == [LinkEventKind.TOKEN_EXPIRING]


def test_a_token_that_ended_means_another_session() -> None:
    with pytest.raises(JoinRefused):
        live().handle(TokenEnded(), 1.0)
