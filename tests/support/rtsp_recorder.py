"""An RTSP server that records what is pushed to it: GStreamer's, in a process of its own.

Run by the system's Python, which has the `gi` bindings:
    /usr/bin/python3 rtsp_recorder.py aac|opus FILE.mkv
Takes H.264 and sound at /cam, and prints its port when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # versions come first

SOUND = {
    "aac": "rtpmp4gdepay name=depay1 ! aacparse",
    "opus": "rtpopusdepay name=depay1 ! opusparse",
}


def main(codec: str, file: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(
        f"( rtph264depay name=depay0 ! h264parse ! queue ! mux. {SOUND[codec]} ! queue ! mux."
        f' matroskamux name=mux streamable=true ! filesink location="{file}" )'
    )
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        sys.exit("no port is free")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
