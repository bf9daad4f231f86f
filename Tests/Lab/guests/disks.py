"""Raw disks for guests, and whether a file system on one is clean."""
import pathlib
import subprocess


def raw(path, mebibytes):
    """An empty disk."""
    with open(path, "wb") as file:
        file.truncate(mebibytes << 20)
    return pathlib.Path(path)


def ext4(path, mebibytes):
    """A disk that is one ext4 file system."""
    raw(path, mebibytes)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", str(path)], check=True)
    return pathlib.Path(path)


def check(path):
    """(whether e2fsck has nothing to say, what it said). The journal of a file system that was unmounted is empty."""
    done = subprocess.run(["/usr/sbin/e2fsck", "-f", "-n", str(path)], capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr
