"""What tests have asked to go wrong: with joins, and with the pictures for a member."""

from dataclasses import dataclass, field

from tests.agora.pictures import PictureFault
from tests.agora.sounds import SoundFault


@dataclass(slots=True)
class JoinFault:
    """What happens to the next joins of a user."""

    uid: str
    count: int = 1
    delay: float = 0.0
    """s before the answer."""
    answered: bool = True
    reason: int | None = None
    """Of the failure; None lets the user in, unless there is an error."""
    error: int | None = None
    """The code of an `error`, sent first; without a reason nothing follows it."""

    @property
    def refuses(self) -> bool:
        """The user is not let in."""
        return not self.answered or self.reason is not None or self.error is not None


@dataclass(slots=True)
class Faults:
    """All that is wrong now."""

    joins: list[JoinFault] = field(default_factory=list)
    pictures: dict[tuple[str, str], PictureFault] = field(default_factory=dict)
    """By channel ("": any) and receiver."""
    sounds: dict[str, SoundFault] = field(default_factory=dict)
    """By receiver."""

    def take_join(self, uid: str) -> JoinFault | None:
        """The fault that meets a join of this user; it counts."""
        met = next((one for one in self.joins if one.uid == uid and one.count > 0), None)
        if met is not None:
            met.count -= 1
        return met

    def of_pictures(self, channel: str, uid: str) -> PictureFault | None:
        """The fault of the pictures for a member."""
        return self.pictures.get((channel, uid)) or self.pictures.get(("", uid))

    def of_sounds(self, _channel: str, uid: str) -> SoundFault | None:
        """The fault of the sound for a member."""
        return self.sounds.get(uid)

    def clear(self) -> None:
        """Remove all faults."""
        self.joins.clear()
        self.pictures.clear()
        self.sounds.clear()
