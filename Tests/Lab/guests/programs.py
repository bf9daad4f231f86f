"""Where the Linux guests and their load programs are: made by guest/linux/build, at $BATON_LINUX_GUESTS."""
import os
import pathlib

from support import programs

GUESTS = pathlib.Path(os.environ.get("BATON_LINUX_GUESTS") or programs.OUT / "guest/linux")
LOADS = GUESTS / "programs"
RESULTS = pathlib.Path(os.environ.get("BATON_RESULTS") or programs.OUT / "lab/direct")
LONG = programs.LONG
QEMU = "/usr/bin/qemu-system-x86_64"
