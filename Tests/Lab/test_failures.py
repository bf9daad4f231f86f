"""Handovers of a Linux guest under full load that fail: it runs on where it was, or goes on in the image before, and nothing is lost."""
import signal
import subprocess
import time

import pytest

from guests import judge, programs
from guests.disks import raw
from support import processes

pytestmark = pytest.mark.handover


def loaded(start, tap, **more):
    guest = start(tap=tap, kernel="lab", profile="mixed", **more)
    guest.wait_ready()
    guest.wait_page()
    guest.start_peer()
    return guest


def conclude(guest, before, reference, figures, said):
    """Everything is right at the end."""
    after, messages, results = guest.page.read(), guest.messages(), guest.finish()
    connections = max(stream.connections for stream in guest.streams.values())
    guest.power_off()
    figures(f"{said}; clock {after.error_us(before):+.0f} us off, fio {results['disk']}, TCP received {results['peer'].get('received')}")
    judge.all_right(judge.loads(results, connections), judge.clock(before, after), judge.messages(messages, reference),
                    judge.file_system(guest.spec.files))


ABORTS = ["crash@hello", "error@map", "hang-in-prepare", "crash@build", "error@load", "crash-in-load", "hang-in-load", "crash@loaded"]
REVERTS = ["die-after-grant", "crash@grant", "unhealthy-in-soak", "slow-in-soak"]


def test_images_that_fail_cost_a_loaded_guest_nothing(start, tap, figures, supervisors):
    """One after another, with good ones in between: aborts leave it where it was, reverts bring it back."""
    supervisor = supervisors("--answer-seconds", "5", "--prepare-seconds", "10")
    guest = loaded(start, tap, supervisor=supervisor, options={"soak": "1s", "budget": "3s"})
    machine, images = guest.machine, supervisor.images
    reference, before = guest.messages(), guest.page.read()
    outcomes = {}
    for fault in ABORTS + REVERTS:
        generation, version = machine.generation, machine.version
        done = machine.upgrade(images.faulty(fault))
        expected = (4, "Aborted") if fault in ABORTS else (5, "Reverted")
        assert (done.code, done.error) == expected, f"{fault}: {done}"
        assert machine.version == version, fault
        if fault in ABORTS:
            assert machine.generation == generation, fault
        guest.page.wait_progress()
        outcomes[fault] = done.error
    guest.hand_over(images.next)
    assert guest.peer.is_connected
    conclude(guest, before, reference, figures, f"{len(ABORTS)} aborts, {len(REVERTS)} reverts")


def test_kills_cost_a_loaded_guest_nothing(start, tap, figures, supervisors):
    """SIGKILL of the incoming worker and of batond, at steps of a handover: the guest runs on or its handover is finished."""
    supervisor = supervisors("--answer-seconds", "5", "--prepare-seconds", "10")
    guest = loaded(start, tap, supervisor=supervisor, options={"budget": "3s"})
    machine, images = guest.machine, supervisor.images
    reference, before = guest.messages(), guest.page.read()

    for fault in ("hang@build", "hang@load"):
        generation = machine.generation
        command = machine.start_upgrade(images.faulty(fault))
        incoming = machine.wait_worker(generation + 1)
        processes.wait_until(lambda: processes.is_held(incoming), f"the incoming worker hangs: {fault}")
        processes.kill(incoming)
        done = machine.finish(command)
        assert (done.code, done.error) == (4, "Aborted"), done
        guest.page.wait_progress()

    for fault in ("hang@populate", "delay:1500@loaded"):
        generation = machine.generation
        command = machine.start_upgrade(images.faulty(fault))
        incoming = machine.wait_worker(generation + 1)
        processes.wait_until(lambda: processes.is_held(incoming), f"the incoming worker hangs: {fault}")
        past = supervisor.batond
        processes.kill(past)
        supervisor.wait_other_batond(past)
        machine.finish(command)
        machine.wait_one_worker()
        guest.page.wait_progress()
    guest.hand_over(images.next)
    conclude(guest, before, reference, figures, "2 kills of the incoming worker, 2 of batond")


def test_a_disk_that_does_not_answer_aborts_the_handover(start, tap, figures, directory, supervisors):
    """The file system of the disk's file is frozen: writes wait, settle runs out of its budget, the guest runs on; then it thaws."""
    backing, mounted = raw(directory / "backing.raw", 160), directory / "mounted"
    mounted.mkdir()
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", str(backing)], check=True)
    subprocess.run(["/usr/bin/mount", "-o", "loop", str(backing), str(mounted)], check=True)
    guest = None
    try:
        guest = loaded(start, tap, supervisor=supervisors("--answer-seconds", "5", "--prepare-seconds", "10"),
                       options={"io_budget": "1s"}, disk_directory=mounted)
        machine, images = guest.machine, guest.machine.supervisor.images
        reference, before = guest.messages(), guest.page.read()
        subprocess.run(["/usr/sbin/fsfreeze", "-f", str(mounted)], check=True)
        try:
            # Beyond what fio writes to. After a while it is still under way: it is stuck.
            status, _ = guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=15000 oflag=direct 2>/dev/null & usleep 1500000; kill -0 $!")
            assert status == 0, "the disk answers although the file system below it is frozen"
            began = time.monotonic()
            done = machine.upgrade(images.next)
            took = time.monotonic() - began
            assert (done.code, done.error) == (4, "Aborted"), done
            assert done.parameters["step"] == "settle", done
            guest.page.wait_progress()
        finally:
            subprocess.run(["/usr/sbin/fsfreeze", "-u", str(mounted)], check=True)
        record = guest.hand_over(images.next)
        assert machine.version == "1.1.0"
        conclude(guest, before, reference, figures,
                 f"frozen: aborted after {took:.1f} s ({done.reason}); thawed: blackout {record['blackoutNanoseconds'] / 1e6:.1f} ms")
    finally:
        if guest:
            guest.machine.supervisor.baton("stop", machine.name, "--force")
            processes.wait_until(lambda: not guest.machine.workers, "the worker has ended")
        subprocess.run(["/usr/bin/umount", "-l", str(mounted)], check=True)
