"""Devices of the host that are passed to guests: giving them away, getting them back, and who is charged for the memory they reach."""
import hashlib
import os
import pathlib
import re
import time

from support.processes import wait_until

PCI = pathlib.Path("/sys/bus/pci")
# What fio writes to lies in it.
JUDGED = 64 << 20


def driver(address):
    link = PCI / "devices" / address / "driver"
    return link.resolve().name if link.exists() else None


def give_away(address):
    """What docs/vfio.md tells operators to do."""
    device = PCI / "devices" / address
    (device / "driver_override").write_text("vfio-pci")
    if driver(address) not in (None, "vfio-pci"):
        (device / "driver/unbind").write_text(address)
    (PCI / "drivers_probe").write_text(address)
    assert driver(address) == "vfio-pci"


def give_back(address):
    """To the driver that the host has for it."""
    device = PCI / "devices" / address
    (device / "driver_override").write_text("\n")
    if driver(address) == "vfio-pci":
        (device / "driver/unbind").write_text(address)
    (PCI / "drivers_probe").write_text(address)


def namespace(address, seconds=20):
    """The block device of an NVMe controller that the host has back."""
    found = wait_until(lambda: next(iter(sorted((PCI / "devices" / address).glob("nvme/nvme*/nvme*n1"))), None), f"a disk at {address}", seconds, 0.1)
    return pathlib.Path("/dev") / found.name


def digest(path, count):
    """SHA-256 of the first bytes of a disk, read from the device and not from any cache."""
    summed = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while count > 0:
            chunk = os.read(descriptor, min(count, 1 << 20))
            summed.update(chunk)
            count -= len(chunk)
    finally:
        os.close(descriptor)
    return summed.hexdigest()


def judge_namespace(guest, address):
    """Powers the guest off. What it has read on its NVMe device last is what the host finds there: returns what is wrong, in words."""
    status, said = guest.run(f"dd if=/dev/nvme0n1 iflag=direct bs=1M count={JUDGED >> 20} 2>/dev/null | sha256sum", 120)
    assert status == 0, said
    guest.power_off()
    give_back(address)
    found = digest(namespace(address), JUDGED)
    return [] if found == said[-1].split()[0] else [f"the guest read {said[-1]} on {address}, the host {found}"]


def charged(pid):
    """Bytes of pinned and of locked memory that a process is charged for (VmPin, VmLck)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1]) << 10 for name in ("VmPin", "VmLck"))


def wait_charged(pid, backend, count, seconds=20):
    """Waits until a worker is charged for that much: a container counts locked memory, iommufd pinned memory."""
    wait_until(lambda: charged(pid)[backend == "container"] == count, lambda: f"{pid} is charged {count}: {charged(pid)}", seconds, 0.05)
