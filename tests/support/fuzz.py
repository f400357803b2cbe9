"""Tries a promise with many inputs: some in each run, or for FUZZ_MINUTES minutes."""

import os
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
FEW = 60
"""Examples in an ordinary run."""
MANY = 500
"""Examples between two looks at the clock in a long one."""
TIMEOUT = 60 + MINUTES * 90
"""s for pytest's limit on a test."""


def fuzz(inputs: SearchStrategy[Any], hold: Callable[[Any], None]) -> int:
    """Call `hold` with each input; returns how many there were."""
    count = 0
    end = time.monotonic() + MINUTES * 60
    options = settings(
        max_examples=MANY if MINUTES else FEW,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )

    def counted(one: Any) -> None:
        nonlocal count
        count += 1
        hold(one)

    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)  # of large inputs
            seed(random.randrange(2**32))(options(given(inputs)(counted)))()
        if time.monotonic() >= end:
            print(f"{count} examples in {MINUTES:g} min")  # noqa: T201 - for -s, -rP
            return count
