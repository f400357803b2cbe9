"""A live RTSP camera for the tests: GStreamer's server with a moving test picture.

Run by the system's Python, which has the `gi` bindings:
    /usr/bin/python3 rtsp_server.py PORT USER:PASSWORD FOLDER TRANSPORT
An empty login locks nothing; an empty folder means a test pattern, else its pictures
00000.jpg, 00001.jpg, … are shown again and again; with the transport `udp` it speaks no other.
Serves /live, /two and, with sound, /heard, and prints its port when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402  # versions come first

ROLE = "viewer"
PATTERN = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1"
PICTURES = (
    "multifilesrc location={}/%05d.jpg loop=true caps=image/jpeg,framerate=30/1"
    " ! jpegdec ! videoconvert ! video/x-raw,format=I420"
)
# With several slices a picture, rtph264pay puts parameter sets between those of a key frame,
# which tears the frame apart for every FFmpeg: one slice, as cameras send.
CAMERA = (
    "( {} ! x264enc tune=zerolatency sliced-threads=false speed-preset=ultrafast"
    " key-int-max=10 bitrate=3000"
    " ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)
TWO = "( {} )".format(
    " ".join(
        f"videotestsrc is-live=true pattern={pattern} ! video/x-raw,width={size[0]},"
        f"height={size[1]},framerate=15/1 ! x264enc tune=zerolatency sliced-threads=false"
        f" speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay{number} pt={96 + number}"
        " config-interval=-1"
        for number, (pattern, size) in enumerate((("red", (320, 240)), ("blue", (1280, 720))))
    )
)
"""Two streams in one session, the smaller one first."""


SOUND = (
    " audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=8000,channels=1"
    " ! alawenc ! rtppcmapay name=pay1 pt=8 )"
)
"""A tone beside the pictures, as cheap cameras send it."""


def main(port: str, login: str, folder: str, transport: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(CAMERA.format(PICTURES.format(folder) if folder else PATTERN))
    factory.set_shared(True)
    if transport == "udp":
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    if login:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", ROLE)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login.split(":")), token)
        server.set_auth(auth)
        rights = Gst.Structure.new_empty(ROLE)
        rights.set_value("media.factory.access", True)
        rights.set_value("media.factory.construct", True)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_role_from_structure(rights)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/live", factory)
    two = GstRtspServer.RTSPMediaFactory()
    two.set_launch(TWO)
    server.get_mount_points().add_factory("/two", two)
    heard = GstRtspServer.RTSPMediaFactory()
    heard.set_launch(CAMERA.format(PATTERN).rstrip(" )") + SOUND)
    server.get_mount_points().add_factory("/heard", heard)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
