"""Images that misbehave: what each leads to, one clear message, and a guest that lives on wherever that is possible."""
import os
import time

import pytest

from support import processes
from support.images import version as images_version
from support.processes import is_held, wait_until

pytestmark = pytest.mark.kvm


def assert_aborted(machine, done, image, step, reason):
    """Exit code 4 and one message that names step and reason; the history names the image; the guest runs on in the worker it had."""
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["machine"] == machine.name
    assert done.parameters["step"] == step, done
    assert reason in done.reason, done
    assert len(done.err.splitlines()) == 1, done
    record = machine.history()[0]
    assert (record["outcome"], record["toImage"]["version"]) == ("aborted", images_version(image)), record
    assert record["reason"] == done.reason
    machine.assert_runs()
    assert machine.show()["machine"]["lastHandover"]["outcome"] == "aborted"


def assert_upgrades(machine, image):
    """A good image is taken right after."""
    done = machine.upgrade(image)
    assert done.code == 0, done
    machine.assert_runs()


# Before the guest is stopped: the fault, the step where it shows, and words of the reason.
BEFORE_THE_STOP = [
    ("exit-at-once", "hello", "exited with status 3"),
    ("crash@hello", "hello", "SIG"),
    ("hang@hello", "hello", "no answer within 3000 ms"),
    ("error@lend", "lend", "a failpoint at lend"),
    ("exit@lend", "lend", "exited with status 3"),
    ("hang@lend", "lend", "no answer within 3000 ms"),
    ("error@map", "build", "a failpoint at map"),
    ("hang-in-prepare", "build", "no answer within 3000 ms"),
    ("crash@build", "build", "SIG"),
    ("error@populate", "build", "a failpoint at populate"),
    ("exit@prepared", "build", "exited with status 3"),
    ("error@practise", "practise", "a failpoint at practise"),
    ("hang@practise", "practise", "no answer within 3000 ms"),
    ("claims-version", "hello", "protocol"),
    ("claims-generation", "hello", "generation"),
    ("different-machine", "build", "a different machine"),
]


@pytest.mark.parametrize("fault, step, reason", BEFORE_THE_STOP, ids=[row[0] for row in BEFORE_THE_STOP])
def test_an_image_that_fails_before_the_stop_costs_the_guest_nothing(machine, images, fault, step, reason):
    machine.evidence.reset_counters()
    image = images.faulty(fault)
    assert_aborted(machine, machine.upgrade(image), image, step, reason)
    assert machine.generation == 1
    # It was never stopped: no gap but those of a busy host.
    assert machine.history()[0].get("blackoutNanoseconds") is None
    assert_upgrades(machine, images.next)


IN_THE_BLACKOUT = [
    ("error@load", "load", "a failpoint at load"),
    ("crash-in-load", "load", "SIG"),
    ("exit@load", "load", "exited with status 3"),
    ("error@loaded", "load", "a failpoint at loaded"),
    ("crash@loaded", "load", "SIG"),
]


@pytest.mark.parametrize("fault, step, reason", IN_THE_BLACKOUT, ids=[row[0] for row in IN_THE_BLACKOUT])
def test_an_image_that_fails_in_the_blackout_leaves_the_guest_with_the_worker_it_had(machine, images, fault, step, reason):
    machine.evidence.reset_counters()
    image = images.faulty(fault)
    assert_aborted(machine, machine.upgrade(image), image, step, reason)
    assert machine.generation == 1
    assert_upgrades(machine, images.next)


@pytest.mark.parametrize("fault", ["hang-in-load", "hang@loaded"])
def test_an_image_that_hangs_in_the_blackout_stops_the_guest_no_longer_than_the_budget(machines, images, fault):
    machine = machines(budget="500ms")
    machine.evidence.reset_counters()
    image = images.faulty(fault)
    done = machine.upgrade(image)
    assert_aborted(machine, done, image, "load", "no answer within 500 ms")
    # The order, the stop and the way back come on top of the budget.
    machine.assert_runs(gap_ms=500 + 500)
    assert machine.evidence.gap_ms() >= 400
    assert_upgrades(machine, images.next)


DAMAGE = {
    "a flipped bit in the header": lambda length: [(17, 1)],
    "a flipped bit in the middle": lambda length: [(length // 2, 0x80)],
    "a flipped bit at the end": lambda length: [(length - 1, 4)],
    "nothing but noise": lambda length: [(offset, 0x55) for offset in range(0, length, 3)],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_checkpoint_damaged_on_its_way_is_not_loaded(machines, images, kind):
    """Somebody writes into it between save and load: the incoming worker finds out, the outgoing one runs on."""
    machine = machines(budget="10s")
    machine.evidence.reset_counters()
    image = images.faulty("delay:1500@load")
    command = machine.start_upgrade(image)
    incoming = machine.wait_worker(2)
    wait_until(lambda: is_held(incoming), "the incoming worker is held at load")
    with open(processes.descriptor_path(incoming, "/memfd:checkpoint"), "r+b", buffering=0) as file:
        content = bytearray(file.read())
        length = int.from_bytes(content[16:24], "little")  # behind it is what practice has left
        for offset, bits in DAMAGE[kind](length):
            content[offset] ^= bits
        file.seek(0)
        file.write(content[:length])
    done = machine.finish(command)
    assert_aborted(machine, done, image, "load", "checkpoint")
    assert_upgrades(machine, images.next)


def test_an_image_that_dies_after_the_grant_is_replaced_by_the_one_before(machine, images):
    """Committed, and not one guest instruction was executed: the checkpoint goes to a worker of the previous image."""
    machine.evidence.reset_counters()
    done = machine.upgrade(images.faulty("die-after-grant"))
    assert (done.code, done.error) == (5, "Reverted"), done
    assert "grant" in done.reason and "exited with status 3" in done.reason and "1.0.0 took the checkpoint" in done.reason, done
    record = machine.history()[0]
    assert (record["outcome"], record["toGeneration"]) == ("reverted", 3), record
    machine.assert_runs(state="reverted")
    assert machine.version == "1.0.0"
    assert_upgrades(machine, images.next)


@pytest.mark.parametrize("fault", ["crash@grant", "error@grant", "hang@grant"])
def test_an_image_that_does_not_take_its_grant_is_replaced(machine, images, fault):
    machine.evidence.reset_counters()
    done = machine.upgrade(images.faulty(fault))
    assert (done.code, done.error) == (5, "Reverted"), done
    assert "grant" in done.reason, done
    machine.assert_runs(state="reverted")
    assert machine.version == "1.0.0"
    assert_upgrades(machine, images.next)


def test_an_image_that_writes_guest_memory_in_prepare_is_seen_by_the_digest(machines, images):
    """Nothing but the digest of the parked guest's memory shows it: this is what that comparison is for."""
    machine = machines(budget="20s")
    machine.evidence.park()
    before = machine.evidence.digest()
    command = machine.start_upgrade(images.faulty("write-ram-in-prepare delay:1500@loaded error@loaded"))
    incoming = machine.wait_worker(2)
    wait_until(lambda: is_held(incoming), "the incoming worker is held at loaded")
    at_loaded = machine.evidence.digest()
    done = machine.finish(command)
    assert done.code == 4, done
    assert at_loaded != before
    machine.evidence.unpark()
    machine.assert_runs()


@pytest.mark.parametrize("fault, reason", [("unhealthy-in-soak", "this image is never well"), ("slow-in-soak", "no answer within 500 ms")])
def test_an_image_that_is_ill_in_soak_is_reverted(machines, images, fault, reason):
    machine = machines(soak="2s")
    machine.evidence.reset_counters()
    done = machine.upgrade(images.faulty(fault))
    assert (done.code, done.error) == (5, "Reverted"), done
    assert "soak" in done.reason and reason in done.reason, done
    machine.assert_runs(state="reverted")
    assert (machine.version, machine.generation) == ("1.0.0", 3)
    records = machine.history()
    assert [(record["kind"], record["outcome"]) for record in records] == [("revert", "committed"), ("upgrade", "reverted")], records


def test_an_image_that_is_ill_in_soak_is_kept_where_the_machine_says_so(machines, images):
    machine = machines(soak="2s", on_failure="keep")
    done = machine.upgrade(images.faulty("unhealthy-in-soak"))
    assert done.code == 1 and "kept" in done.reason, done
    machine.assert_runs()
    assert machine.generation == 2


def test_an_image_that_is_ill_and_cannot_be_reverted_runs_on(machines, images):
    machine = machines(soak="2s")
    machine.evidence.reset_counters()
    done = machine.upgrade(images.faulty("unhealthy-in-soak error@settle"))
    assert done.code == 1 and "the revert did not go through" in done.reason and "a failpoint at settle" in done.reason, done
    machine.assert_runs()
    assert machine.generation == 2


@pytest.mark.parametrize("policy", ["reset", "stop"])
def test_an_image_that_crashes_after_its_first_instruction_leads_to_the_crash_policy(machines, images, policy):
    machine = machines(on_crash=policy)
    boot = machine.evidence.boot_tsc
    done = machine.upgrade(images.faulty("crash-after-first-instruction"))
    assert done.code == 1, done
    assert "SIG" in done.reason and f"crash policy: {policy}" in done.reason, done
    if policy == "reset":
        machine.evidence.wait_booted(other_than=boot)
        machine.wait_state("running")
        machine.assert_runs()
        assert machine.version == "1.0.0"
        assert_upgrades(machine, images.next)
    else:
        machine.wait_state("crashed")
        wait_until(lambda: not machine.workers, "no worker stays")


def test_an_image_that_crashes_in_soak_is_not_started_again(machines, images):
    """The guest is reset, in the image that was good."""
    machine = machines(on_crash="reset", soak="20s")
    boot = machine.evidence.boot_tsc
    command = machine.start_upgrade(images.next)
    machine.wait_state("soaking")
    os.kill(machine.workers[2], 11)
    done = machine.finish(command)
    assert done.code in (1, 5) and "SIGSEGV" in done.reason, done
    machine.evidence.wait_booted(other_than=boot)
    machine.wait_state("running")
    assert machine.version == "1.0.0"
    machine.assert_runs()


def test_failures_and_successes_follow_each_other(machine, images, supervisor):
    """Fail, succeed, fail before the stop and in the blackout, succeed: nothing of a failure stays."""
    machine.evidence.reset_counters()
    outcomes = []
    for image in [images.faulty("exit-at-once"), images.next, images.faulty("crash-in-load"), images.faulty("die-after-grant"),
                  images.honest, images.faulty("error@lend"), images.faulty("error@load"), images.next]:
        outcomes.append(machine.upgrade(image).code)
    assert outcomes == [4, 0, 4, 5, 0, 4, 4, 0]
    machine.assert_runs()
    assert machine.version == "1.1.0"


# The outgoing worker is the one that fails.


@pytest.mark.parametrize("fault, step", [("error@preflight", "preflight"), ("error@practise", "practise"), ("error@settle", "settle"), ("error@park", "save"), ("error@save", "save")])
def test_an_outgoing_worker_that_cannot_go_on_keeps_its_guest(machines, images, fault, step):
    machine = machines(image=images.faulty(fault))
    machine.evidence.reset_counters()
    done = machine.upgrade(images.next)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["step"] == step and f"a failpoint at {fault.split('@')[1]}" in done.reason, done
    assert "outgoing worker" in done.reason
    machine.assert_runs()
    assert machine.generation == 1


def test_an_outgoing_worker_that_passes_the_budget_but_answers_runs_on(machines, images):
    machine = machines(image=images.faulty("delay:1000@save"), budget="300ms")
    machine.evidence.reset_counters()
    done = machine.upgrade(images.next)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["step"] == "save" and "no answer within 300 ms" in done.reason, done
    machine.assert_runs()


@pytest.mark.parametrize("step", ["practise", "settle"])
def test_an_outgoing_worker_that_is_late_runs_on(machines, images, step):
    machine = machines(image=images.faulty(f"delay:4000@{step}"))
    done = machine.upgrade(images.next)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["step"] == step, done
    machine.assert_runs()


@pytest.mark.parametrize("fault", ["crash@practise", "crash@settle", "crash@park", "exit@save", "hang@save"])
def test_an_outgoing_worker_lost_before_saved_leads_to_the_crash_policy(machines, images, fault):
    machine = machines(image=images.faulty(fault), on_crash="reset", budget="1s")
    boot = machine.evidence.boot_tsc
    done = machine.upgrade(images.next)
    assert done.code == 1 and "crash policy: reset" in done.reason, done
    machine.evidence.wait_booted(other_than=boot)
    machine.wait_state("running")
    machine.assert_runs()
    assert len(machine.workers) == 1


@pytest.mark.parametrize("fault", ["exit@saved", "crash@saved", "hang@saved"])
def test_an_outgoing_worker_lost_after_saved_is_finished_forward(machines, images, fault):
    """Its checkpoint is whole, and the commit word says so: the guest goes on where it was."""
    machine = machines(image=images.faulty(fault), budget="2s")
    boot = machine.evidence.boot_tsc
    machine.evidence.reset_counters()
    done = machine.upgrade(images.next)
    assert done.code in (0, 5), done
    machine.wait_one_worker()
    assert machine.evidence.boot_tsc == boot
    assert machine.state in ("running", "reverted")
    machine.evidence.assert_unharmed()
    assert machine.generation >= 2


def test_an_operator_aborts_until_commit(machine, images, supervisor):
    command = machine.start_upgrade(images.faulty("hang-in-prepare"))
    wait_until(lambda: 2 in machine.workers and is_held(machine.workers[2]), "the incoming worker hangs")
    busy = machine.upgrade(images.next)
    assert (busy.code, busy.error) == (3, "Busy"), busy
    assert supervisor.baton("abort", "web1").code == 0
    done = machine.finish(command)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert "operator" in done.reason, done
    machine.assert_runs()
    nothing = supervisor.baton("abort", "web1")
    assert (nothing.code, nothing.error) == (3, "Refused"), nothing
    assert_upgrades(machine, images.next)


def test_an_upgrade_goes_on_when_the_command_that_asked_for_it_is_gone(machine, images):
    command = machine.start_upgrade(images.next)
    machine.wait_worker(2)
    command.kill()
    command.communicate()
    wait_until(lambda: machine.generation == 2, "the upgrade ends by itself")
    time.sleep(0.2)
    machine.assert_runs()
