#!/usr/bin/env bash
# Runs a command in a fresh Debian 13, in a clean copy of this checkout. Safe to run again.
#   tests/debian13/run.sh [COMMAND [ARGUMENT...]]      default: tests/debian13/inside.sh
# The system is made once by mmdebstrap and kept in $RELAYD_DEBIAN13_CACHE, else in the user's
# cache. It has what the README says to install, and nothing else.
# Needs root for chroot and mounts. Mounts and processes are in namespaces that end with the command,
# and the command ends with this script, so that nothing is left however it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."

mirror=http://deb.debian.org/debian
packages=(ca-certificates python3-venv make)
cache=${RELAYD_DEBIAN13_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/relayd-debian13}
[ $# -gt 0 ] || set -- tests/debian13/inside.sh

skip() {
  echo "NO DEBIAN 13, SO PYTHON 3.13 AND PYAV 19 ARE NOT TESTED: $*" >&2
  exit 0
}

[ "$(id -u)" = 0 ] || skip "a chroot needs root"
unshare --mount --pid --fork true || skip "no namespaces may be made here"
if ! command -v mmdebstrap >/dev/null; then
  echo "installing from apt: mmdebstrap"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends mmdebstrap; } >/dev/null ||
    skip "apt could not install mmdebstrap"
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
base=$cache/base-$(echo "$mirror ${packages[*]}" | sha256sum | cut -c 1-12).tar
if [ ! -e "$base" ]; then
  echo "making a Debian 13 with ${packages[*]}"
  rm -f "$cache"/base-*
  mmdebstrap --quiet --variant=minbase --include="${packages[*]}" trixie "$cache/new.tar" "$mirror" \
    9>&- || skip "mmdebstrap failed"
  mv "$cache/new.tar" "$base"
fi

root=$cache/root child=
leave() {
  [ -z "$child" ] || kill -KILL "$child" 2>/dev/null || true
  wait
  rm -rf --one-file-system "$root"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf --one-file-system "$root"
mkdir "$root"
tar -xf "$base" -C "$root"
mkdir "$root/relayd"
git ls-files -z | tar --create --null --files-from=- | tar -x -C "$root/relayd"

# Names, certificates and pip's settings are this machine's: it may have a proxy or a mirror.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt \
    "${PIP_CONFIG_FILE:-}" "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
  [ ! -f "$file" ] || cp -L --parents "$file" "$root"
done
if [ -d "$HOME/.config/pip" ]; then
  mkdir -p "$root/root/.config"
  cp -rL "$HOME/.config/pip" "$root/root/.config"
fi
mapfile -d '' -t settings < <(
  env -0 | grep -ziE '^(PIP_|SSL_CERT_FILE=|REQUESTS_CA_BUNDLE=|(https?|all|no)_proxy=)'
)

setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child bash -euc '
  root=$1; shift
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/dev/shm"
  exec chroot "$root" env -C /relayd -i "$@"
' bash "$root" HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin PIP_QUIET=1 "${settings[@]}" "$@" \
  9>&- </dev/null &
child=$!
wait "$child" && status=0 || status=$?
child=
exit "$status"
