"""The state of one connection, as both engines tell it."""

from collections.abc import Callable

from relayd.rtc.webrtc.engine import PeerState


class States:
    """Tells each change of the state; nothing follows CLOSED. For the loop's thread."""

    def __init__(self, on_state: Callable[[PeerState], None]) -> None:
        self._on_state = on_state
        self.now = PeerState.NEW
        self.was_connected = False
        """Whether it was CONNECTED before."""

    def enter(self, state: PeerState) -> None:
        """Change to `state`."""
        if state is self.now or self.now is PeerState.CLOSED:
            return
        self.was_connected |= state is PeerState.CONNECTED
        self.now = state
        self._on_state(state)

    def lose(self) -> None:
        """Change to what the loss of the path is: another state if there never was one."""
        self.enter(PeerState.DISCONNECTED if self.was_connected else PeerState.FAILED)
