#!/bin/busybox sh
# The guest's first process, out of the initramfs: mounts the host's root read-only with a
# throw-away layer above, loads v4l2loopback, and hands over to the agent or to systemd.
# The kernel's command line says what is wanted: vm.systemd=1, vm.rw=DIR (shared, writable).
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs devtmpfs /dev
rw= systemd=
for word in $($B cat /proc/cmdline); do
  case $word in vm.*) eval "${word#vm.}" ;; esac
done
fail() {
  echo "VM-FAILED $*" >/dev/console
  $B sleep 1
  $B poweroff -f
}
for module in $($B cat /modules); do $B insmod "$module" || fail "insmod $module"; done

share="trans=virtio,version=9p2000.L,msize=512000"   # the most that virtio takes
N=/new
$B mount -t 9p -o "ro,$share,cache=loose" root /ro || fail root
$B mount -t tmpfs -o mode=755,size=75% tmpfs /tmp
$B mkdir /tmp/upper /tmp/work
$B mount -t overlay -o lowerdir=/ro,upperdir=/tmp/upper,workdir=/tmp/work overlay $N || fail overlay
$B mount -t tmpfs -o mode=755 tmpfs $N/run
$B mkdir -p $N/run/vm $N/run/lock $N/proc $N/sys $N/dev
$B mount -t 9p -o "$share,cache=none" ctl $N/run/vm || fail ctl
if [ -n "$rw" ]; then
  $B mkdir -p "$N$rw"
  $B mount -t 9p -o "$share,cache=mmap" rw "$N$rw" || fail "share $rw"
fi
if [ -s $N/run/vm/modopts ]; then
  set -f
  $B insmod /lib/modules/"$($B uname -r)"/v4l2loopback.ko $($B cat $N/run/vm/modopts) || fail v4l2loopback
  set +f
fi
for folder in proc sys dev; do $B mount --move /$folder $N/$folder; done
$B mkdir -p $N/dev/shm $N/dev/pts
$B mount -t tmpfs -o mode=1777 tmpfs $N/dev/shm
$B mount -t devpts -o mode=620,ptmxmode=666 devpts $N/dev/pts
[ -e $N/dev/fd ] || $B ln -s /proc/self/fd $N/dev/fd
$B mount -t cgroup2 cgroup2 $N/sys/fs/cgroup
# qemu's user network: the host is 10.0.2.2.
$B ip link set lo up
$B ip addr add 10.0.2.15/24 dev eth0 && $B ip link set eth0 up && $B ip route add default via 10.0.2.2
$B cp /bin/busybox $N/run/busybox
# So that modprobe and rmmod of v4l2loopback work inside. Debian's bookworm has a merged /usr.
$B mkdir -p $N/usr/lib/modules
$B cp -r /lib/modules/* $N/usr/lib/modules/
echo "VM-ROOT ready at $($B cut -d' ' -f1 $N/proc/uptime) s" >$N/dev/console
[ -z "$systemd" ] && exec $B switch_root $N /bin/sh /run/vm/start

# systemd takes a root with these files for a container and ignores the kernel's command line;
# and Debian's own tmp.conf would empty /tmp, where the checkout may lie.
$B rm -f $N/.dockerenv $N/run/.containerenv
$B mkdir -p $N/run/systemd/system $N/etc/tmpfiles.d
$B ln -sf /dev/null $N/etc/tmpfiles.d/tmp.conf
$B cat >$N/run/systemd/system/vm-agent.service <<'UNIT'
[Unit]
Description=agent of the test machine
After=basic.target dbus.socket
Wants=dbus.socket
[Service]
ExecStart=/bin/sh /run/vm/start
UNIT
printf '[Unit]\nRequires=basic.target\nWants=vm-agent.service\nAllowIsolate=yes\n' \
  >$N/run/systemd/system/vm.target
exec $B switch_root $N /lib/systemd/systemd
