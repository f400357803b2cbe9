"""Secrets that are concealed: bounded, newest kept, those of the configuration for good."""

import threading

from relayd.urls.concealed import HIDDEN, MOST_KEPT, Concealed


def test_only_the_newest_are_kept_and_those_of_the_configuration_for_good():
    known = Concealed()
    known.add("the-api-key", lasting=True)
    for number in range(1000):
        known.add(f"token-{number:04}")
    assert len(known) == MOST_KEPT + 1
    said = known.replaced_in("the-api-key token-0999 token-0950 token-0949")
    assert said == f"{HIDDEN} {HIDDEN} {HIDDEN} token-0949"


def test_one_that_is_used_again_is_the_newest():
    known = Concealed(most=2)
    for secret in ("secret-1", "secret-2", "secret-1", "secret-3"):
        known.add(secret)
    assert known.replaced_in("secret-1 secret-2") == f"{HIDDEN} secret-2"


def test_those_of_the_configuration_are_bounded_too():
    known = Concealed(most=3)
    for number in range(10):
        known.add(f"secret-{number}", lasting=True)
    assert len(known) == 3


def test_one_that_becomes_lasting_stays():
    known = Concealed(most=1)
    known.add("secret-1")
    known.add("secret-1", lasting=True)
    known.add("secret-1")
    known.add("secret-2")
    assert known.replaced_in("secret-1") == HIDDEN


def test_short_strings_and_what_its_own_replacement_holds_are_left_alone():
    known = Concealed()
    known.add("short")
    known.add("example", "https://example.org")
    assert len(known) == 0


def test_threads_that_add_and_read_at_once_do_each_other_no_harm():
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
