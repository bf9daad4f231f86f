"""Linux guests that do other things while they are handed over: nothing, reboot, power off, run hot, have many processors."""
import threading
import time

import pytest

from guests import judge, programs, running
from guests.baton import Blackouts

pytestmark = pytest.mark.handover

HANDOVERS = 100 if programs.LONG else 20
FEW = 20 if programs.LONG else 4


def go_through(guest, count, drift_us=0):
    """Handovers of a guest whose clocks are watched; returns their figures and the complaints. `drift_us`: see `judge.clock`."""
    reference, before = guest.messages(), guest.page.read()
    records = guest.alternate(count)
    after = guest.page.read()
    complaints = judge.clock(before, after, drift_us=drift_us) + judge.messages(guest.messages(), reference)
    return f"{Blackouts(records)}, clock {after.error_us(before):+.0f} us off", complaints


def ready(guest, seconds=running.BOOT_SECONDS):
    guest.wait_ready(seconds)
    guest.wait_page()
    return guest


def test_an_idle_guest_goes_through_handovers(start, tap, figures):
    guest = ready(start(tap=tap, kernel="lab"))
    said, complaints = go_through(guest, HANDOVERS)
    status, _ = guest.run(f"ping -c 2 -i 0.2 {tap.host} && dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null")
    guest.power_off()
    figures(f"idle: {said}, boot {guest.boot_seconds:.1f} s")
    judge.all_right(complaints, [] if status == 0 else ["disk or network do not work any more"])


def test_hot_loops_go_through_handovers(start, figures):
    guest = ready(start(kernel="lab", profile="hot"))
    said, complaints = go_through(guest, HANDOVERS)
    results = guest.finish()
    guest.power_off()
    figures(f"hot loops: {said}, {results['cpu']}")
    judge.all_right(complaints, results["problems"], [] if results["cpu"]["memory-errors"] == results["cpu"]["register-errors"] == "0" else [results["cpu"]])


def test_eight_processors_under_mixed_load_go_through_handovers(start, tap, figures):
    guest = ready(start(tap=tap, kernel="lab", profile="mixed", vcpus=8, memory_mib=384))
    guest.start_peer()
    said, complaints = go_through(guest, HANDOVERS)
    results = guest.finish()
    guest.power_off()
    figures(f"8 vCPUs, mixed load: {said}, {results['cpu']}")
    judge.all_right(complaints, judge.loads(results), judge.file_system(guest.spec.files))


@pytest.mark.parametrize("vcpus", [16, 32] if programs.LONG else [16])
def test_many_processors_boot_and_are_handed_over(start, figures, vcpus):
    # All of them share the lab's two.
    guest = ready(start(kernel="lab", vcpus=vcpus, memory_mib=384), 300)
    assert guest.found["cpus"] == str(vcpus)
    before, seconds = guest.page.read(), 60 if programs.LONG else 5
    time.sleep(seconds)
    alone = guest.page.read().error_us(before)
    # 32 vCPUs on two processors: its clocks go 5 us a second wrong by themselves, and 20 handovers take a quarter of an hour.
    said, complaints = go_through(guest, FEW, alone / seconds if vcpus == 32 else 0)
    guest.power_off()
    figures(f"{vcpus} vCPUs: {said} ({alone:+.0f} us without handovers), boot {guest.boot_seconds:.1f} s")
    judge.all_right(complaints)


def during(guest, command, delay):
    """Sends the guest a command so that it takes effect during a handover, `delay` seconds after that began; returns the record."""
    timer = threading.Timer(delay, guest.serial.send, [command])
    timer.start()
    images = guest.machine.supervisor.images
    done = guest.machine.upgrade(images.next if guest.machine.version == "1.0.0" else images.honest)
    timer.join()
    return done


@pytest.mark.parametrize("delay", [0.05] if not programs.LONG else [0.01 * step for step in range(20)])
def test_a_guest_reboots_during_a_handover(start, tap, figures, delay):
    """It comes up again, in the worker that has it then; and can be handed over."""
    guest = ready(start(tap=tap, kernel="lab"))
    done = during(guest, "reboot", delay)
    assert done.code in (0, 1, 3, 4), done
    found = guest.wait_ready()
    assert found["disks"] == "vda,vdb" and float(found["uptime"]) < 100, found
    guest.wait_page()
    guest.hand_over(guest.machine.supervisor.images.next if guest.machine.version == "1.0.0" else guest.machine.supervisor.images.honest)
    guest.power_off()
    figures(f"reboot {delay * 1000:.0f} ms after the order: the handover ended with {done.code}, up again after {guest.boot_seconds:.1f} s")


@pytest.mark.parametrize("delay", [0.05] if not programs.LONG else [0.01 * step for step in range(20)])
def test_a_guest_powers_off_during_a_handover(start, figures, delay):
    """Its machine ends in order, whoever had it."""
    guest = ready(start(kernel="lab"))
    done = during(guest, "poweroff", delay)
    began = time.monotonic()
    guest.wait_ended()
    figures(f"power-off {delay * 1000:.0f} ms after the order: the handover ended with {done.code}, the machine {time.monotonic() - began:.1f} s later")
    assert not guest.machine.workers, "no worker stays"
