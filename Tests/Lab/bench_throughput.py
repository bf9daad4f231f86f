"""Throughput of baton-vmm's virtio disk and network against QEMU's: the same guest, kernel, disk file and tap, by turns.

Figures, not verdicts. Disks are files in the lab's memory, so that what is compared is the way there. QEMU: cache=writeback, aio=threads,
vhost=off; both serve the guest from one process without help of the kernel.
"""
import statistics
import time

import pytest

from guests import programs, qemu
from guests.baton import BatonGuest
from guests.network import Peer
from guests.spec import Spec

SECONDS, TURNS = (10, 3) if programs.LONG else (3, 2)
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
    found = {"QEMU": [], "Baton": []}
    for turn in range(TURNS):
        for name, turns in found.items():
            spec = Spec(directory, kernel="7.2", name=f"{name.lower()}-{turn}").with_devices(tap)
            guest = qemu.QemuGuest(spec) if name == "QEMU" else BatonGuest(supervisor, spec)
            try:
                turns.append(measure(guest))
            finally:
                guest.close()
    figures(f"medians of {TURNS} turns; MiB/s, and requests a second")
    figures(f"{'':24}{'QEMU':>20}{'Baton':>20}   Baton/QEMU")
    for what in found["QEMU"][0]:
        rates, texts = {}, {}
        for name, turns in found.items():
            rates[name] = statistics.median(turn[what][0] for turn in turns)
            counts = [turn[what][1] for turn in turns if turn[what][1] is not None]
            texts[name] = f"{rates[name]:.1f}" + (f", {statistics.median(counts):.0f}/s" if counts else "")
        figures(f"{what:24}{texts['QEMU']:>20}{texts['Baton']:>20}   {rates['Baton'] / rates['QEMU']:.2f}")
