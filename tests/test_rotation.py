import asyncio
from typing import cast

import pytest

from relayd.errors import JoinFailed
from relayd.rotation import LEAST_LIFE, RETRY, Rotation
from relayd.route import Route
from tests.test_clock import FakeClock

SUCCESSOR = cast("Route", object())


async def ready() -> Route:
    return SUCCESSOR


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_successor_is_opened_when_the_session_is_old_and_not_before():
    clock = FakeClock()
    rotation = Rotation(100.0, clock, ready)
    rotation.begin()
    clock.time += 99.9
    assert rotation.step() is None
    assert not rotation.in_progress
    clock.time += 0.1
    assert rotation.step() is None
    assert rotation.in_progress
    await settle()
    assert rotation.step() is SUCCESSOR
    assert not rotation.in_progress


async def test_the_successor_has_a_whole_life_of_its_own():
    clock = FakeClock()
    rotation = Rotation(100.0, clock, ready)
    rotation.begin()
    clock.time += 100
    rotation.step()
    await settle()
    clock.time += 20
    assert rotation.step() is SUCCESSOR
    clock.time += 99
    rotation.step()
    assert not rotation.in_progress


async def test_zero_means_never():
    clock = FakeClock()
    rotation = Rotation(0.0, clock, ready)
    rotation.begin()
    clock.time += 1e9
    rotation.step()
    assert not rotation.in_progress


async def test_a_session_that_will_end_early_gets_its_successor_at_once_even_if_it_never_rotates():
    clock = FakeClock()
    rotation = Rotation(0.0, clock, ready)
    rotation.begin()
    clock.time += LEAST_LIFE
    rotation.hurry()
    rotation.step()
    assert rotation.in_progress


async def test_sessions_that_each_are_said_to_end_at_once_make_no_loop():
    clock = FakeClock()
    rotation = Rotation(2700.0, clock, ready)
    rotation.begin()
    rotation.hurry()
    rotation.step()
    assert not rotation.in_progress
    clock.time += LEAST_LIFE
    rotation.step()
    assert rotation.in_progress


async def test_being_hurried_never_puts_off_what_is_due_anyway():
    clock = FakeClock()
    rotation = Rotation(5.0, clock, ready)
    rotation.begin()
    rotation.hurry()
    clock.time += 5.0
    rotation.step()
    assert rotation.in_progress


async def test_being_hurried_again_and_again_opens_no_second_successor_before_the_wait_is_over():
    clock, tries = FakeClock(), []

    async def failing() -> Route:
        tries.append(clock.now())
        raise JoinFailed("no")

    rotation = Rotation(0.0, clock, failing)
    rotation.begin()
    clock.time += LEAST_LIFE
    for _ in range(5):
        rotation.hurry()
        rotation.step()
        await settle()
    assert len(tries) == 1
    clock.time += RETRY
    rotation.hurry()
    rotation.step()
    await settle()
    assert len(tries) == 2
    await rotation.end()


async def test_a_successor_that_fails_is_tried_again_later_while_the_old_one_goes_on():
    clock, tries = FakeClock(), []

    async def failing() -> Route:
        tries.append(clock.now())
        raise JoinFailed("no")

    rotation = Rotation(100.0, clock, failing)
    rotation.begin()
    clock.time += 100
    for _ in range(3):
        rotation.step()
        await settle()
    assert len(tries) == 1
    clock.time += RETRY
    rotation.step()
    await settle()
    assert len(tries) == 2
    rotation.step()


async def test_an_end_cancels_a_successor_in_the_making():
    clock, cancelled = FakeClock(), []

    async def slow() -> Route:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return SUCCESSOR

    rotation = Rotation(1.0, clock, slow)
    rotation.begin()
    clock.time += 1
    rotation.step()
    await settle()
    await rotation.end()
    assert cancelled == [True]
    assert not rotation.in_progress


async def test_what_nobody_foresaw_is_not_swallowed():
    clock = FakeClock()

    async def broken() -> Route:
        raise ZeroDivisionError

    rotation = Rotation(1.0, clock, broken)
    rotation.begin()
    clock.time += 1
    rotation.step()
    await settle()
    with pytest.raises(ZeroDivisionError):
        rotation.step()
