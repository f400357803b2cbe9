"""What happens to a link while it is live."""

import time

import numpy as np
import pytest

from relayd.errors import JoinRefused, LinkLost
from relayd.rtc.link import LinkEventKind
from tests.agora.cloud import Cloud
from tests.agora.side import TOKEN, Side, member, picture
from tests.agora.wire import Reason


def test_an_interruption_is_reported_and_repaired(side: Side, agora: Cloud) -> None:
    side.live()
    agora.interrupt()
    assert "interrupted" in side.wait_for_event(LinkEventKind.DEGRADED).reason
    agora.resume()
    side.wait_for_event(LinkEventKind.RECOVERED)
    side.new_frame()


def test_an_interruption_has_our_own_deadline_not_the_sdks_twenty_minutes(
    side: Side, agora: Cloud
) -> None:
    side.live()
    agora.interrupt()
    agora.lose()
    began = time.monotonic()
    assert isinstance(side.wait_for_event(LinkEventKind.LOST).error, LinkLost)
    assert 2 < time.monotonic() - began < 6


def test_an_engine_that_leaves_and_comes_back_is_reported_and_asked_for_a_key_frame(
    side: Side, agora: Cloud
) -> None:
    side.live()
    before = member(agora).intra_requests["3"]
    agora.go_away("3")
    assert "left the channel" in side.wait_for_event(LinkEventKind.DEGRADED).reason
    agora.come_back("3")
    side.wait_for_event(LinkEventKind.RECOVERED)
    side.pump_until("a request", lambda: member(agora).intra_requests["3"] > before)


def test_a_user_who_joins_elsewhere_under_our_id_ends_the_link(side: Side, agora: Cloud) -> None:
    side.live()
    agora.fail(Reason.SAME_UID)
    assert "same user id" in str(side.wait_for_event(LinkEventKind.LOST).error)


def test_an_expiring_token_is_reported_and_another_one_used(side: Side, agora: Cloud) -> None:
    side.live()
    agora.will_expire(TOKEN)
    side.wait_for_event(LinkEventKind.TOKEN_EXPIRING)
    side.worker.renew("the-next-token")
    side.pump_until("renewal", lambda: member(agora).renewed == ["the-next-token"])


def test_a_token_that_has_ended_needs_another_session(side: Side, agora: Cloud) -> None:
    side.live()
    agora.did_expire()
    assert isinstance(side.wait_for_event(LinkEventKind.REFUSED).error, JoinRefused)


def test_a_refused_renewal_keeps_the_old_token_and_is_reported(side: Side, agora: Cloud) -> None:
    side.live()
    agora.fail_calls("rtc_conn_renew_token", -110)
    side.worker.renew("a-bad-token")
    assert "refused" in side.wait_for_event(LinkEventKind.TOKEN_EXPIRING).reason
    np.testing.assert_array_equal(side.new_frame(), 255 - picture())
    assert LinkEventKind.REFUSED not in side.kinds()


@pytest.mark.parametrize(("code", "ends"), [(109, True), (110, True), (14, False), (115, False)])
def test_errors_that_the_sdk_reports_end_the_link_only_if_they_are_final(
    side: Side, agora: Cloud, code: int, *, ends: bool
) -> None:
    side.live()
    agora.error(code, "a text of the SDK")
    if ends:
        side.wait_for_event(LinkEventKind.REFUSED)
    else:
        side.new_frame()
        assert LinkEventKind.REFUSED not in side.kinds()


def test_network_figures_are_reported(side: Side, agora: Cloud) -> None:
    side.live()
    agora.network(rtt_ms=42, tx_loss=0, rx_loss=0)

    def has_figures() -> bool:
        return any(event.stats and event.stats.round_trip == 0.042 for event in side.events)

    side.pump_until("stats", has_figures)


def test_pushes_that_the_sdk_refuses_are_counted_and_the_link_goes_on(
    side: Side, agora: Cloud
) -> None:
    side.live()
    agora.fail_calls("video_frame_sender_send", -1)
    side.pump_for(1.0)
    agora.network(rtt_ms=1, tx_loss=0, rx_loss=0)
    side.pump_until(
        "stats", lambda: any(event.stats and event.stats.dropped > 5 for event in side.events)
    )
    assert not {LinkEventKind.LOST, LinkEventKind.REFUSED} & set(side.kinds())
