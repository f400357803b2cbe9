"""Which of [source] options FFmpeg knows: it ignores any other without a word.

PyAV does not tell which ones were used. So the names are listed here: those for reading of FFmpeg
5.1 to 8.1's formats, protocols, devices and decoders, as `ffmpeg -h full` prints them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from relayd.urls.quoting import plain_name

KNOWN: Final = frozenset(
    """
aa_fixed_key ac activation_bytes advanced_editlist allowed_extensions allowed_media_types
allowed_segment_extensions alpha_mode analyzeduration apply_cropping ar audible_fixed_key
audible_iv audible_key auth_type auto_convert avioflags bandwidth bit_rate block buffer_size bug
ca_file cafile cert cert_file cert_pem ch_layout channel channel_layout channels chars_per_frame
chroma_sample_location code_size codec_whitelist color_primaries color_range color_trc
colorspace compute_pcr connect connect_timeout content_type cookies correct_ts_overflow crtc_id
cryptokey debug decryption_iv decryption_key decryption_keys default_delay default_fps device
discard_damaged_percentage draw_mouse dscp dump_separator dumpgraph duration_probesize dvbuffer
dvguid dvtype ec eia608_extract enable_drefs encryption end end_offset enforced_encryption
err_detect export_all export_path_metadata export_side_data export_xmp extension_picky
external_sock extra_hw_frames f_err_detect f_strict fdebug fflags ffrtmphttp_tls ffs field_order
fifo_size fix_teletext_pts flags flags2 flv_full_metadata flv_ignore_prevtag flv_metadata follow
follow_mouse format format_modifier format_whitelist formatprobesize fpsprobesize fragment_size
frame_rate frame_size framerate frames_per_packet ftp-anonymous-password ftp-password ftp-user
gateway grab_x grab_y graph graph_file hca_highkey hca_lowkey hca_subkey headers http_multiple
http_persistent http_proxy http_seekable hwaccel_flags icy idct ignore_chapters ignore_editlist
ignore_length ignore_loop indexmem initial_pause initial_request_size input_format inputbw
interleaved_read iptos ipttl iv key key_file key_pem kind kmpreannounce kmrefreshrate latency
linespeed linger list_devices list_formats list_standards listen listen_timeout live
live_start_index local_addr local_port local_rtcpport local_rtpport localaddr localport
localrtcpport localrtpport location log_level loop lossmaxttl lowres m3u8_hold_counters
max_delay max_file_size max_fps max_gif_delay max_packet_size max_pixels max_port
max_probe_packets max_redirects max_reload max_samples max_size max_streams max_stts_delta
max_ts_probe maxbw merge_alpha merge_pmt_versions messageapi method min_delay min_port
minversion missing_streams mode mss mtu multiple_requests nakreport name no_resync_search offset
oheadbw overrun_nonfatal paranoia_mode passphrase pattern_type payload_size pbkeylen peerlatency
pixel_format pkt_size plane_id post_data prefer_x_start private_key probesize protocol_blacklist
protocol_whitelist raw_packet_size rcvbuf rcvlatency read_ahead_limit reconnect reconnect_at_eof
reconnect_delay_max reconnect_delay_total_max reconnect_max_retries reconnect_on_http_error
reconnect_on_network_error reconnect_streamed recv_buffer_size referer region_border
reorder_queue_size request_channel_layout request_sample_fmt request_size respect_retry_after
resync_size reuse reuse_socket rist_profile rtbufsize rtcp_port rtcpport rtmp_app rtmp_buffer
rtmp_conn rtmp_flashver rtmp_listen rtmp_live rtmp_pageurl rtmp_playpath rtmp_subscribe
rtmp_swfhash rtmp_swfsize rtmp_swfurl rtmp_swfverify rtmp_tcurl rtp_flags rtsp_flags
rtsp_transport rw_timeout safe sample_rate sample_size scan_all_pmts sdp_flags secret seek2any
seek_streams_individually seekable seg_format_options seg_max_retry segment_time_metadata
select_region send_buffer_size server short_seek_size show_region side_data_prefer_packet
skip_alpha skip_bottom skip_estimate_duration_from_pts skip_frame skip_idct skip_initial_bytes
skip_loop_filter skip_top skip_unknown_pmt smoother sndbuf snddropdelay sources speed
srt_streamid srtp_in_params srtp_in_suite standard start start_number start_number_range
start_time stream_name streamid strict strict_mime_boundary stride sub_charenc sub_charenc_mode
sub_name sub_text_format subfps tcp_keepalive tcp_mss tcp_nodelay thread_type threads
ticks_per_frame timeout timestamps tlpktdrop tls_verify track_index transtype ts ts_from_file
ts_packetsize tsbpd tsbpddelay ttl type udplite_coverage use_absolute_path use_libv4l2
use_mfra_for use_odml use_srtp use_tfdt use_wallclock_as_timestamps user_agent usetoc verify
verifyhost video_size wallclock window_id write_to_source x y
""".split()  # noqa: SIM905 - a list of quoted names would take four times the lines
)
_OPTIONS_IN_URL: Final = {"udp", "rtp", "srtp", "srt", "tcp", "unix"}
"""Protocols whose options are in the URL's query."""
_RENAMED: Final = {"stimeout": "timeout"}
"""Options that FFmpeg once had, by their present name."""


@dataclass(frozen=True, slots=True)
class UnknownOption:
    """An option that FFmpeg would ignore."""

    name: str
    """As it may be shown."""
    meant: str
    """The known option with the most similar name; empty if none is similar."""

    @property
    def hint(self) -> str:
        """What to do."""
        return f"did you mean {self.meant}" if self.meant else "FFmpeg ignores it: remove it"


def unknown_options(url: str, options: Iterable[str]) -> list[UnknownOption]:
    """Return those of a source's options that FFmpeg does not know for reading.

    With those in the URL of a protocol that reads its options from there.
    """
    names = [*options, *_in_query(url)]
    return [UnknownOption(plain_name(name), _meant(name)) for name in names if name not in KNOWN]


def _in_query(url: str) -> list[str]:
    before, query = url.partition("?")[::2]
    if before.partition("://")[0].lower() not in _OPTIONS_IN_URL:
        return []
    return [part.partition("=")[0] for part in query.split("&") if "=" in part]


def _meant(name: str) -> str:
    plain = name.lower().lstrip("-").replace("-", "_")
    return _RENAMED.get(plain) or next(iter(get_close_matches(plain, sorted(KNOWN), 1)), "")
