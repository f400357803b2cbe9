"""The sleep part of logind, on a real bus, with another D-Bus library: for the system's python3.

    logind_double.py BUS-ADDRESS [--delay SECONDS] [--refuse] [--preparing]

It reads commands from stdin and writes what happens to stdout, a line each. It waits for locks
for ever, so that a lock that is not released shows, however busy the machine is.
"""

import argparse
import os
import sys
from typing import TextIO

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"


def report(*parts: object) -> None:
    print(*parts, flush=True)  # noqa: T201 - the tests read it


class Refused(dbus.DBusException):
    _dbus_error_name = "org.freedesktop.DBus.Error.AccessDenied"


class Manager(dbus.service.Object):
    def __init__(self, bus: dbus.bus.BusConnection, options: argparse.Namespace) -> None:
        super().__init__(bus, PATH)
        self.bus, self.options = bus, options
        self.preparing = options.preparing
        self.waiting = False
        self.locks: dict[int, tuple[str, str, str, str]] = {}
        self.client = ""

    @dbus.service.method(MANAGER, "ssss", "h", sender_keyword="sender")
    def Inhibit(  # noqa: N802 - D-Bus
        self, what: str, who: str, why: str, mode: str, sender: str = ""
    ) -> dbus.types.UnixFd:
        self.client = sender
        if self.options.refuse:
            report("refused")
            raise Refused("Permission denied")
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.locks[ours] = (what, who, why, mode)
        GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, ours, GLib.IOCondition.HUP, self.released)
        given = dbus.types.UnixFd(theirs)
        os.close(theirs)
        report("locked", what, who, mode, len(self.locks))
        return given

    @dbus.service.method(dbus.PROPERTIES_IFACE, "ss", "v")
    def Get(self, interface: str, name: str) -> dbus.Boolean | dbus.UInt64:  # noqa: N802 - D-Bus
        return {
            "PreparingForSleep": dbus.Boolean(self.preparing),
            "InhibitDelayMaxUSec": dbus.UInt64(int(self.options.delay * 1e6)),
        }[str(name)]

    @dbus.service.signal(MANAGER, "b")
    def PrepareForSleep(self, begins: bool) -> None:  # noqa: FBT001, N802 - D-Bus
        pass

    def released(self, fd: int, _condition: object) -> bool:
        os.close(fd)
        del self.locks[fd]
        report("released", len(self.locks))
        self.sleep_if_free()
        return False

    def sleep_if_free(self) -> None:
        if self.waiting and not self.locks:
            self.waiting = False
            report("asleep")

    def command(self, stream: TextIO, _condition: object) -> bool:
        word = stream.readline().strip()
        if word == "suspend":
            self.preparing = self.waiting = True
            self.PrepareForSleep(True)
            self.sleep_if_free()
        elif word == "wake":
            self.preparing = False
            self.PrepareForSleep(False)
        elif word == "forge":
            self.forge()
        elif word == "list":
            report("locks", len(self.locks))
        else:
            loop.quit()
        return True

    def forge(self) -> None:
        """Send the client logind's signals as another local user, past its match rules."""
        other = dbus.bus.BusConnection(self.options.address)
        signal = dbus.lowlevel.SignalMessage(PATH, MANAGER, "PrepareForSleep")
        signal.append(True, signature="b")
        call = dbus.lowlevel.MethodCallMessage(self.client, PATH, MANAGER, "Take")
        ours, theirs = os.pipe()
        call.append(dbus.types.UnixFd(theirs), signature="h")
        os.close(theirs)
        for message in signal, call:
            message.set_destination(self.client)
            other.send_message(message)
        other.flush()
        # Reported once the client has closed the descriptor that it never asked for.
        GLib.unix_fd_add_full(GLib.PRIORITY_DEFAULT, ours, GLib.IOCondition.HUP, self.ignored)
        self.other = other

    def ignored(self, fd: int, _condition: object) -> bool:
        os.close(fd)
        report("forged")
        return False


parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("--delay", type=float, default=5.0)
parser.add_argument("--refuse", action="store_true")
parser.add_argument("--preparing", action="store_true")
options = parser.parse_args()
dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(options.address)
bus.set_exit_on_disconnect(False)
name = dbus.service.BusName(NAME, bus, do_not_queue=True)
manager = Manager(bus, options)
GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN, manager.command)
loop = GLib.MainLoop()
report("ready")
loop.run()
