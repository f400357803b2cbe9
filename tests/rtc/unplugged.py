"""A peer whose cable is cut: nothing reaches it any more, and it closes nothing."""

from relayd.rtc.webrtc.engine_aiortc import AiortcPeer


def unplug(peer: AiortcPeer) -> None:
    """Let a connected peer receive nothing from now on."""
    for transceiver in peer._connection.getTransceivers():
        for protocol in transceiver.receiver.transport.transport._connection._protocols:
            protocol.datagram_received = _ignore  # type: ignore[method-assign,assignment]  # unplugged


def _ignore(*_: object) -> None:
    """Receive nothing."""
