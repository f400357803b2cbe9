"""When the voice may be heard, by the relay's state; pure."""

from relayd.relay.conditions import Conditions
from relayd.relay.status import RelayState
from relayd.sound.gate import Silence

_LIVE = {RelayState.LIVE, RelayState.ROTATING}


class Audible:
    """Says why nothing may be heard now, from one change of the relay to the next.

    A fault of the swap does not mute a speaker in the middle of a sentence, unless `standby` is
    "mute". What was never live is silent: nobody knows the delay yet, and viewers see that the
    camera is starting.
    """

    def __init__(self, standby: str) -> None:
        """`standby` is `[sound] standby`: "keep" or "mute"."""
        self.standby = standby
        self._has_begun = False

    def silent_for(
        self, state: RelayState, conditions: Conditions, *, voice_alone: bool
    ) -> frozenset[Silence]:
        """Return the reasons for silence; none of them is a person's mute.

        `voice_alone`: programs read only the microphone, so there is no picture to wait for.
        """
        is_live = state in _LIVE
        is_away = conditions.paused or conditions.asleep
        if is_away or (conditions.source.suspended and not voice_alone):
            self._has_begun = False
        elif is_live or voice_alone:
            self._has_begun = True
        reasons: set[Silence] = set()
        if is_away:
            reasons.add(Silence.PAUSED)
        if not self._has_begun:
            reasons.add(Silence.NOT_LIVE)
        elif self.standby == "mute" and not is_live and not voice_alone:
            reasons.add(Silence.STANDBY)
        return frozenset(reasons)
