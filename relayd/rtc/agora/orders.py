"""What other threads ask of a link's control thread, through its inbox."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Publish:
    """A picture waits to be sent."""


@dataclass(frozen=True, slots=True)
class Speak:
    """A block of sound waits to be sent."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Another token is to be used."""

    token: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The thread that delivers pictures cannot go on."""

    fault: Exception


@dataclass(frozen=True, slots=True)
class Leave:
    """The link is to end."""

    deadline: float
    """Monotonic s."""


Order = Publish | Speak | Renew | Broken | Leave
