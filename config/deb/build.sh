#!/usr/bin/env bash
# Builds relayd_VERSION_ARCH.deb: relayd and all Python packages it stands on, in an environment of
# its own under /usr/lib/relayd. pip runs here, at build time; installing it needs no network.
#   config/deb/build.sh [--compress xz|gzip|none] [--pip PYTHON] [--to DIR]
# Needs apt's python3 (the package works with its minor version alone) and dpkg-deb; --pip names a
# Python that has pip, default the same python3.
set -euo pipefail
cd "$(dirname "$0")/../.."

pip=/usr/bin/python3 to=dist compress=xz
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' relayd/__init__.py)
while [ $# -gt 0 ]; do
  case $1 in
    --compress) compress=$2 ;;
    --pip) pip=$2 ;;
    --to) to=$2 ;;
    *) echo "build.sh: $1: unknown; see the head of this file" >&2; exit 2 ;;
  esac
  shift 2
done
python=/usr/bin/$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root home=$work/root/usr/lib/relayd doc=$work/root/usr/share/doc/relayd
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$doc"

# The environment: no scripts but relayd, and no trace of where it was built. pip is in it for
# `relayd agora-install`: Agora's library may be fetched by its user, and not be passed on.
"$python" -m venv --without-pip "$home"
"$pip" -m pip --python "$home/bin/python" install --quiet --disable-pip-version-check \
  --no-compile --only-binary :all: --no-binary relayd '.[webrtc]' pip
find "$home/bin" -mindepth 1 ! -name 'python*' ! -name relayd -delete
sed -i '1s|.*|#!/usr/lib/relayd/bin/python|' "$home/bin/relayd"
sed -i '/^command = /d' "$home/pyvenv.cfg"
find "$home" -name direct_url.json -delete
# What compilers and type checkers read, and tests: a quarter of all files.
find "$home/lib" -type f \( -name '*.py[xi]' -o -name '*.pxd' -o -name '*.[ch]' \) -delete
find "$home/lib" -type d -name tests -prune -exec rm -rf {} +
find "$home/lib" -type f -exec chmod 644 {} +
# Compiled here: the service may not write below /usr, and a purge must find nothing it wrote.
"$python" -m compileall -q -j 0 -s "$root" -p / --invalidation-mode unchecked-hash "$home/lib"
ln -s ../lib/relayd/bin/relayd "$root/usr/bin/relayd"

"$home/bin/python" -m relayd install --package --yes --command /usr/bin/relayd --root "$root" >/dev/null
"$pip" -m pip --python "$home/bin/python" freeze --disable-pip-version-check 2>/dev/null |
  grep -v '^relayd' >"$doc/python-packages.txt"
# Only now, for it leads nowhere below $work.
ln -sf "../../../bin/${python##*/}" "$home/bin/${python##*/}"

cp README.md NOTICE "$doc/"
install -Dm 644 docs/sources.md "$doc/docs/sources.md"
mkdir -p "$root/usr/share/man/man1"
gzip -9n <config/man/relayd.1 >"$root/usr/share/man/man1/relayd.1.gz"
cp config/emulator.toml "$doc/examples/"
{ cat config/deb/copyright; sed 's/^$/./; s/^/ /' LICENSE; } >"$doc/copyright"
printf 'relayd (%s) unstable; urgency=medium\n\n  * See README.md and the project'"'"'s CHANGELOG.md.\n\n -- the relayd authors <relayd@localhost>  %s\n' \
  "$version" "$(date -R -u -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
mkdir -p "$root/usr/share/lintian/overrides"
cp config/deb/lintian-overrides "$root/usr/share/lintian/overrides/relayd"

(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@PYTHON@/${python##*/}/" \
  -e "s/@SIZE@/$(du -sk --exclude DEBIAN "$root" | cut -f1)/" config/deb/control >"$root/DEBIAN/control"
for script in postinst prerm postrm; do
  install -m 755 "config/deb/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$to"
package=$to/relayd_${version}_${architecture}.deb
# Level 4: half a minute instead of two, for a tenth more bytes.
level=$([ "$compress" = none ] || echo -z4)
dpkg-deb --root-owner-group "-Z$compress" $level --build "$root" "$package" >/dev/null
echo "$package: $(du -k "$package" | cut -f1) KiB, installed $(sed -n 's/^Installed-Size: //p' "$root/DEBIAN/control") KiB, for $(sed -n 's/^Depends: //p' "$root/DEBIAN/control")"
