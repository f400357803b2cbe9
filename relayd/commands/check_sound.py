"""What `relayd check` says of the sound: microphones, and who gets the voice."""

import asyncio

from relayd.commands.check_voice import check_voice
from relayd.commands.finding import Finding
from relayd.config.settings import MicrophoneSettings, Settings
from relayd.errors import RelaydError
from relayd.output.loopback_card import aplay_for
from relayd.output.microphone import card_device, uses_loopback_card
from relayd.output.pulse import find_server


async def check_sound(settings: Settings, _relay: str) -> list[Finding]:
    """Look at each microphone without making it: a running relay may have it."""
    if not settings.wants_sound:
        return []
    microphones = [each for each in settings.output if isinstance(each, MicrophoneSettings)]
    return [
        *[await asyncio.to_thread(_check_microphone, each) for each in microphones],
        *await asyncio.to_thread(check_voice, settings.sound),
        Finding.ok("sound", _who_gets_it(settings)),
    ]


def _who_gets_it(settings: Settings) -> str:
    if settings.sound.source == "none":
        return "no voice is read"
    return f"your voice is {'' if settings.sound.publish else 'not '}sent to the service"


def _check_microphone(microphone: MicrophoneSettings) -> Finding:
    if uses_loopback_card(microphone):
        return _check_card(microphone)
    try:
        server = find_server()
    except RelaydError as fault:
        return Finding.failed("microphone", fault)
    late = f", heard {server.latency * 1000:.0f} ms after it is written" if server.latency else ""
    return Finding.ok("microphone", f"{microphone.name!r} by {server.name}{late}")


def _check_card(microphone: MicrophoneSettings) -> Finding:
    device = card_device(microphone)
    try:
        aplay_for(device)
    except RelaydError as fault:
        return Finding.failed("microphone", fault)
    return Finding.ok("microphone", f"the sound card of {device} is there")
