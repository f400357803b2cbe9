"""Every name inside aiortc and aioice that `relayd.rtc` replaces, sets or overrides.

Setting a name that upstream has renamed fails silently, so each must exist and be read by the
library's own functions. pyproject.toml allows no version above the newest one these passed on.
"""

import ast
import inspect
from fractions import Fraction
from types import ModuleType

import aioice.ice
import pytest
from aiortc import rtcrtpreceiver, rtcrtpsender
from aiortc.codecs import h264, vpx
from aiortc.codecs.opus import OpusEncoder
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rate import RemoteBitrateEstimator
from aiortc.rtp import RtpPacket
from av import Packet

from relayd.rtc.webrtc.pictures import SteadyEstimate


def read_inside_functions(module: ModuleType) -> set[str]:
    """Global names that the functions of a module look up each time they run."""
    functions = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    bodies = [part for function in functions for line in function.body for part in ast.walk(line)]
    return {
        node.id for node in bodies if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (aioice.ice, "CONSENT_INTERVAL"),
        (aioice.ice, "CONSENT_FAILURES"),
        (aioice.ice, "get_host_addresses"),
        (rtcrtpreceiver, "JitterBuffer"),
        (rtcrtpreceiver, "get_decoder"),
        (rtcrtpreceiver, "RemoteBitrateEstimator"),
        *((codec, f"{bound}_BITRATE") for codec in (h264, vpx) for bound in ("MIN", "MAX")),
        *((codec, "DEFAULT_BITRATE") for codec in (h264, vpx)),
        (h264, "MAX_FRAME_RATE"),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_name_that_is_set_in_a_library_is_one_that_it_reads(
    module: ModuleType, name: str
) -> None:
    assert hasattr(module, name)
    assert name in read_inside_functions(module)


def test_the_replacement_for_ices_host_addresses_has_the_same_parameters() -> None:
    parameters = list(inspect.signature(aioice.ice.get_host_addresses).parameters)
    assert parameters == ["use_ipv4", "use_ipv6"]


def test_the_jitter_buffer_has_what_the_prompt_one_builds_on() -> None:
    buffer = JitterBuffer(capacity=16, is_video=True)
    assert (buffer.capacity, buffer._is_video, buffer._origin) == (16, True, None)
    assert len(buffer._packets) == 16
    assert list(inspect.signature(buffer._remove_frame).parameters) == ["sequence_number"]
    assert list(inspect.signature(buffer.remove).parameters) == ["count"]
    assert "_remove_frame" in inspect.getsource(JitterBuffer.add)
    frame = JitterFrame(b"x", 1)
    assert (frame.data, frame.timestamp) == (b"x", 1)


def test_a_packet_carries_the_payload_that_the_jitter_buffer_joins() -> None:
    receiver = inspect.getsource(rtcrtpreceiver)
    assert "packet._data = " in receiver
    assert hasattr(RtpPacket(), "marker")


def test_a_sender_takes_packets_that_are_encoded_already() -> None:
    sender = inspect.getsource(rtcrtpsender)
    assert "self.__encoder.pack(data)" in sender
    assert "self.transport._send_rtp(packet_bytes)" in sender
    packet = Packet(b"encoded")
    packet.pts, packet.time_base = 960, Fraction(1, 48_000)
    assert OpusEncoder().pack(packet) == ([b"encoded"], 960)


def test_a_receiver_hands_whatever_its_decoder_returns_to_the_track() -> None:
    decoding = inspect.getsource(rtcrtpreceiver.decoder_worker)
    assert "for frame in frames" in decoding
    assert "output_q.put(frame)" in decoding
    receiver = inspect.getsource(rtcrtpreceiver.RTCRtpReceiver)
    assert "pli_flag, encoded_frame = self.__jitter_buffer.add(packet)" in receiver
    assert "JitterBuffer(capacity=16, prefetch=4)" in receiver


def test_a_key_frame_can_be_asked_for_on_either_side() -> None:
    assert "self._send_keyframe()" in inspect.getsource(rtcrtpsender)
    parameters = inspect.signature(rtcrtpreceiver.RTCRtpReceiver._send_rtcp_pli).parameters
    assert list(parameters) == ["self", "media_ssrc"]


def test_the_path_in_use_is_kept_where_it_is_looked_for() -> None:
    assert "self._nominated[pair.component] = pair" in inspect.getsource(aioice.ice)
    assert "self.remote_candidate = remote_candidate" in inspect.getsource(aioice.ice.CandidatePair)
    assert isinstance(aioice.ice.CandidatePair.local_candidate, property)


def test_the_estimate_of_the_path_is_asked_as_its_replacement_expects() -> None:
    ours = inspect.signature(SteadyEstimate.add).parameters
    assert list(ours) == list(inspect.signature(RemoteBitrateEstimator.add).parameters)
