#!/usr/bin/env bash
# The README's commands on a fresh Debian 13, as far as a few minutes go: the demo as it is, and of
# the tests those that meet PyAV, on the version that pip takes for this Python and on 18. Last, the
# virtual microphone on this Debian's sound servers: it is the only one here whose PipeWire has the
# long buffer that relayd has to know of.
#   tests/debian13/inside.sh [PYTEST'S ARGUMENTS...]
set -euo pipefail

tests=(tests/media_room tests/source tests/output/test_stream.py tests/output/test_preview.py
       tests/emulator/test_api_server.py tests/logs/test_logs.py)
servers=(pulseaudio pulseaudio-utils pipewire pipewire-pulse pipewire-bin wireplumber dbus-daemon)
count='import av; print(sum(1 for _ in av.open("out.mp4").decode(video=0)))'
summary=()

try() { # PYAV'S MAJOR VERSION  PYTEST'S ARGUMENTS...
  local major=$1 version pictures counts
  shift
  rm -f out.mp4
  make demo ARGS="--seconds 15 --record out.mp4 --no-camera --port 0"
  version=$(.venv/bin/python -c 'import av; print(av.__version__)')
  [ "${version%%.*}" = "$major" ] || { echo "expected PyAV $major, found $version" >&2; exit 1; }
  pictures=$(.venv/bin/python -c "$count")
  make .venv/bin/.dev
  .venv/bin/pytest -n 2 --dist loadfile "${tests[@]}" "$@" | tee pytest.out
  counts=$(tail -n 1 pytest.out | tr -d =)
  summary+=("PyAV $version: the demo recorded $pictures pictures; tests:$counts")
}

try 19 "$@"
.venv/bin/pip install --quiet 'av==18.*'
try 18 "$@"

# After the demo, which shall have no more than the README says.
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${servers[@]}"; } >/dev/null
.venv/bin/pytest tests/output/test_microphone.py "$@" | tee pytest.out
counts=$(tail -n 1 pytest.out | tr -d =)
case $counts in *skipped*) echo "a sound server is missing here" >&2; exit 1 ;; esac
summary+=("$(pulseaudio --version); PipeWire $(pipewire --version | grep -oEm 1 '[0-9.]+$'); tests:$counts")
echo "Debian $(cat /etc/debian_version), $(.venv/bin/python -V)"
printf '%s\n' "${summary[@]}"
