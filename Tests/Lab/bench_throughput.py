"""Throughput of baton-vmm's virtio disk and network against QEMU's: the same guest, kernel, disk file and tap, one after the other.

Figures, not verdicts. Disks are files in the lab's memory, so that what is compared is the way there. QEMU: cache=writeback, aio=threads,
vhost=off; both serve the guest from one process without help of the kernel.
"""
import time

import pytest

from guests import programs, qemu
from guests.baton import BatonGuest
from guests.network import Peer
from guests.spec import Spec

SECONDS = 10 if programs.LONG else 5
DISK = [(pattern, size) for size in ("4k", "128k") for pattern in ("read", "write", "randread", "randwrite")]


def disk_throughput(guest, pattern, size):
    """MiB/s and requests a second of one fio job."""
    status, said = guest.run(
        f"fio --name=b --filename=/dev/vda --direct=1 --ioengine=io_uring --iodepth=16 --rw={pattern} --bs={size} --size=48m --time_based "
        f"--runtime={SECONDS} --ramp_time=1 --eta=never --minimal | cut -d ';' -f 7,8,48,49", 60 + SECONDS)
    assert status == 0, said
    read_kib, read_count, write_kib, write_count = (int(word) for word in [line for line in said if ";" in line][-1].split(";"))
    return (read_kib + write_kib) / 1024, read_count + write_count


def network_throughput(guest, to_guest):
    """MiB/s of one TCP connection in one direction; the other side sends next to nothing."""
    since = guest.serial.position
    guest.serial.send(f"run stream listen 5002 {1 if to_guest else 0} &")
    guest.serial.wait("^@stream listening", 30, since)
    peer = Peer(guest.spec.tap.guest, 0 if to_guest else 1, 5002)
    time.sleep(SECONDS)
    found = peer.finish()
    assert found["status"] == 0 and found["wrong"] == "0", found
    return float(found["to-mibps" if to_guest else "from-mibps"])


def measure(guest):
    guest.wait_ready()
    results = {f"disk {pattern} {size}": disk_throughput(guest, pattern, size) for pattern, size in DISK}
    results["network to the guest"] = (network_throughput(guest, True), None)
    results["network from the guest"] = (network_throughput(guest, False), None)
    guest.power_off()
    return results


@pytest.mark.handover
def test_throughput(tap, directory, supervisor, figures):
    assert qemu.is_there(), f"{programs.QEMU} is missing"
    found = {}
    for name in ("QEMU", "Baton"):
        spec = Spec(directory, kernel="7.2", name=name.lower()).with_devices(tap)
        guest = qemu.QemuGuest(spec) if name == "QEMU" else BatonGuest(supervisor, spec)
        try:
            found[name] = measure(guest)
        finally:
            guest.close()
    figures(f"{'':24}{'QEMU':>22}{'Baton':>22}   Baton/QEMU")
    for what, (rate, count) in found["QEMU"].items():
        own, own_count = found["Baton"][what]
        text = lambda rate, count: f"{rate:.1f} MiB/s" + (f", {count}/s" if count is not None else "")
        figures(f"{what:24}{text(rate, count):>22}{text(own, own_count):>22}   {own / rate:.2f}")
