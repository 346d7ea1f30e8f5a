"""For how long nobody has touched this computer: asked of each platform in its own way, without a library for it.

Nothing is listened to: the system is asked when the last key was pressed or the mouse moved, and it says no more.
"""

from __future__ import annotations

import ctypes
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

_ASK_S: Final = 3.0
_MUTTER: Final = [
    "gdbus",
    "call",
    "--session",
    "--dest",
    "org.gnome.Mutter.IdleMonitor",
    "--object-path",
    "/org/gnome/Mutter/IdleMonitor/Core",
    "--method",
    "org.gnome.Mutter.IdleMonitor.GetIdletime",
]
_IOREG: Final = ["ioreg", "-c", "IOHIDSystem", "-d", "4"]


def idle_s() -> float | None:
    """Return for how many seconds nobody has used keyboard or mouse [s], or None if this computer cannot tell.

    Of several seats (a screen, terminals) the one used last counts.
    """
    found = [seconds for ask in _SEATS for seconds in [ask()] if seconds is not None]
    return min(found) if found else None


def parse_mutter(said: str) -> float | None:
    """Return the seconds in GNOME's answer, `(uint64 1234,)`, which counts milliseconds."""
    match = re.search(r"uint64 (\d+)", said)
    return int(match[1]) / 1e3 if match else None


def parse_ioreg(said: str) -> float | None:
    """Return the seconds in macOS's registry, `"HIDIdleTime" = 1234`, which counts nanoseconds."""
    match = re.search(r'"HIDIdleTime" = (\d+)', said)
    return int(match[1]) / 1e9 if match else None


def terminals_s(now: float, terminals: list[Path]) -> float | None:
    """Return for how long no terminal was typed into, as `w` finds out: by when each was last read."""
    read = []
    for terminal in terminals:
        try:
            read.append(terminal.stat().st_atime)
        except OSError:
            continue
    return max(0.0, now - max(read)) if read else None


def _of_windows() -> float | None:
    class LastInput(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("ticks", ctypes.c_uint))

    windll: Any = getattr(ctypes, "windll", None)
    last = LastInput(ctypes.sizeof(LastInput), 0)
    if windll is None or not windll.user32.GetLastInputInfo(ctypes.byref(last)):
        return None
    ticks = int(windll.kernel32.GetTickCount()) & 0xFFFFFFFF
    return float((ticks - last.ticks) & 0xFFFFFFFF) / 1e3  # both count milliseconds and wrap after 49 days


def _of_x11() -> float | None:
    """Ask the X server's screen saver extension; under Wayland without XWayland there is none."""

    class Info(ctypes.Structure):
        _fields_ = (
            ("window", ctypes.c_ulong),
            ("state", ctypes.c_int),
            ("kind", ctypes.c_int),
            ("til_or_since", ctypes.c_ulong),
            ("idle_ms", ctypes.c_ulong),
            ("event_mask", ctypes.c_ulong),
        )

    try:
        x11, saver = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXss.so.1")
    except OSError:
        return None
    x11.XOpenDisplay.restype = x11.XDefaultRootWindow.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if not display:
        return None
    info = Info()
    try:
        root = x11.XDefaultRootWindow(ctypes.c_void_p(display))
        asked = saver.XScreenSaverQueryInfo(
            ctypes.c_void_p(display), ctypes.c_void_p(root), ctypes.byref(info)
        )
        return info.idle_ms / 1e3 if asked else None
    finally:
        x11.XCloseDisplay(ctypes.c_void_p(display))


def _of_command(command: list[str], parse: Callable[[str], float | None]) -> Callable[[], float | None]:
    def ask() -> float | None:
        try:
            said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_ASK_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return parse(said.stdout) if said.returncode == 0 else None

    return ask


def _of_terminals() -> float | None:
    terminals = [*Path("/dev/pts").glob("[0-9]*"), *Path("/dev").glob("tty[0-9]")]
    return terminals_s(time.time(), terminals)


if sys.platform == "win32":
    _SEATS: tuple[Callable[[], float | None], ...] = (_of_windows,)
elif sys.platform == "darwin":
    _SEATS = (_of_command(_IOREG, parse_ioreg),)
else:
    _SEATS = (_of_x11, _of_command(_MUTTER, parse_mutter), _of_terminals)
