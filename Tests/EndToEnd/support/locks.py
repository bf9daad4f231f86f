"""Locks on files, and whether two processes have the same open file."""
import ctypes
import fcntl
import os
import struct

F_OFD_GETLK, F_OFD_SETLK = 36, 37
_FLOCK = "hhqqi4x"
_SYS_kcmp, _KCMP_FILE = 312, 0


def is_locked(path, for_reading=False):
    """Whether somebody's lock would keep a new open file of `path` from being locked for writing (or for reading)."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        wanted = struct.pack(_FLOCK, fcntl.F_RDLCK if for_reading else fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return struct.unpack(_FLOCK, fcntl.fcntl(file, F_OFD_GETLK, wanted))[0] != fcntl.F_UNLCK
    finally:
        os.close(file)


def descriptors_of(pid, path):
    """The numbers of a process's descriptors that show the file at `path`."""
    wanted = os.stat(path)
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            status = os.stat(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
        if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(int(number))
    return found


def same_open_file(first, second):
    """Whether two (process, descriptor) are one open file (kcmp(2)); None where the kernel does not say."""
    result = ctypes.CDLL(None, use_errno=True).syscall(
        ctypes.c_long(_SYS_kcmp), ctypes.c_long(first[0]), ctypes.c_long(second[0]), ctypes.c_long(_KCMP_FILE), ctypes.c_ulong(first[1]),
        ctypes.c_ulong(second[1]))
    if result < 0:
        return None
    return result == 0
