"""Handovers that fail while a passed-through device works: whoever is killed, wherever, its copies end, and each interrupts once."""
import pytest

from guests.passed import give_away
from guests.passthrough import EDU, EduMachine, raise_line
from support import processes
from support.processes import is_held, wait_until

pytestmark = pytest.mark.handover

# Each step once, the back ends and kinds of interrupt in turns.
KINDS = [("iommufd", "msi"), ("container", "intx"), ("iommufd", "intx"), ("container", "msi")]


def in_turns(steps):
    return [(step, *KINDS[number % len(KINDS)]) for number, step in enumerate(steps)]


@pytest.fixture(scope="module", autouse=True)
def device():
    give_away(EDU)


@pytest.fixture
def edu(supervisor):
    def run(backend, irq="msi", **options):
        return EduMachine(supervisor, backend, irq, **options).run()

    return run


def hold_incoming(machine, fault, generation=2):
    """Starts an upgrade to an image with that fault, and waits until its worker is held there."""
    command = machine.start_upgrade(machine.supervisor.images.faulty(fault))
    pid = machine.wait_worker(generation)
    wait_until(lambda: is_held(pid), lambda: f"the incoming worker is held: {fault}")
    return command, pid


INCOMING = ["hello", "lend", "map", "build", "populate", "prepared", "load", "loaded"]


@pytest.mark.parametrize("step,backend,irq", in_turns(INCOMING))
def test_the_incoming_worker_is_killed_before_commit_and_the_device_goes_on(edu, images, step, backend, irq):
    machine = edu(backend, irq)
    outgoing = machine.pid
    command, pid = hold_incoming(machine, f"hang@{step}")
    processes.kill(pid)
    assert machine.finish(command).code == 4
    machine.assert_unharmed()
    assert machine.pid == outgoing
    machine.hand_over(images.next)
    machine.assert_unharmed()


@pytest.mark.parametrize("backend,irq", KINDS)
def test_the_incoming_worker_is_killed_as_it_takes_the_grant_and_another_has_the_device(edu, images, backend, irq):
    machine = edu(backend, irq)
    command, pid = hold_incoming(machine, "hang@grant")
    processes.kill(pid)
    assert machine.finish(command).code in (0, 5)
    machine.assert_unharmed(state=machine.state)
    machine.hand_over(images.next)
    machine.assert_unharmed()


@pytest.mark.parametrize("fault,code,backend,irq", [
    ("error@loaded", 4, "iommufd", "msi"), ("error@grant", 5, "container", "msi"), ("exit@grant", 5, "iommufd", "intx"), ("hang@grant", 5, "container", "intx")])
def test_a_bad_image_leaves_the_device_alone(edu, images, fault, code, backend, irq):
    machine = edu(backend, irq)
    assert machine.upgrade(images.faulty(fault)).code == code
    machine.assert_unharmed(state="running" if code == 4 else "reverted")
    machine.hand_over(images.next)
    machine.assert_unharmed()


@pytest.mark.parametrize("step,backend,irq", in_turns(["preflight", "practise", "settle", "park", "save"]))
def test_the_outgoing_worker_is_killed_before_saved_and_the_guest_starts_anew(edu, images, step, backend, irq):
    """The crash policy applies, as without a handover: custody resets the device in between."""
    machine = edu(backend, irq, image=images.faulty(f"hang@{step}"), on_crash="reset")
    outgoing = machine.pid
    command = machine.start_upgrade(images.next)
    wait_until(lambda: is_held(outgoing), "the outgoing worker is held")
    processes.kill(outgoing)
    assert machine.finish(command).code == 1
    machine.wait_booted(2)
    machine.assert_unharmed(boots=2)


@pytest.mark.parametrize("step,backend,irq", in_turns(["load", "loaded"]))
def test_the_outgoing_worker_is_killed_after_saved_and_the_device_goes_forward(edu, images, step, backend, irq):
    machine = edu(backend, irq, budget="10s")
    outgoing = machine.pid
    command, incoming = hold_incoming(machine, f"delay:1000@{step}")
    processes.kill(outgoing)
    assert machine.finish(command).code == 0
    machine.assert_unharmed()
    assert machine.pid == incoming
    machine.hand_over(images.next)
    machine.assert_unharmed()


@pytest.mark.parametrize("backend,irq", KINDS)
def test_both_workers_are_killed_after_saved_and_a_third_has_the_device(edu, images, backend, irq):
    machine = edu(backend, irq, budget="10s")
    outgoing = machine.pid
    command, incoming = hold_incoming(machine, "delay:1500@load")
    processes.kill(outgoing)
    processes.kill(incoming)
    assert machine.finish(command).code in (0, 5)
    machine.assert_unharmed(state=machine.state)
    assert machine.state in ("running", "reverted")
    machine.hand_over(images.next)
    machine.assert_unharmed()


@pytest.mark.parametrize("backend,irq", KINDS)
def test_after_a_crash_the_guest_starts_anew_with_the_same_device(edu, images, backend, irq):
    """The device is reset by custody, between the two; its memory is mapped anew."""
    machine = edu(backend, irq, on_crash="reset")
    processes.kill(machine.pid)
    machine.wait_booted(2)
    machine.assert_unharmed(boots=2)
    machine.hand_over(images.next)
    machine.assert_unharmed(boots=2)


@pytest.mark.parametrize("backend", ["iommufd", "container"])
def test_a_line_that_was_asserted_before_the_machine_started_is_noticed(edu, images, backend):
    """As a guest leaves it that was ended, of a device that cannot be reset."""
    raise_line(EDU)
    machine = edu(backend, "intx")
    machine.hand_over(images.next)
    machine.assert_unharmed()


STEPS = ["preflight", "spawn", "hello", "lend", "map", "prepared", "practise", "settle", "park", "saved", "load", "loaded", "commit", "grant", "running",
         "fence", "take-addresses", "retire", "soak"]
UNDONE = STEPS[:STEPS.index("saved")]


def kill_batond(supervisors, images, step, backend, irq, undone, image=None):
    supervisor = supervisors("--answer-seconds", "20", "--prepare-seconds", "30", hold=step)
    machine = EduMachine(supervisor, backend, irq, image, budget="2s", soak="500ms" if step == "soak" else "0s").run()
    command = machine.start_upgrade(images.next)
    wait_until(supervisor.marker.exists, f"batond is held at {step}")
    batond = supervisor.batond
    processes.kill(batond)
    machine.finish(command)
    supervisor.wait_other_batond(batond)
    wait_until(lambda: machine.state == "running", lambda: f"{machine.show()}\n{supervisor.log}", pause=0.05)
    machine.assert_unharmed()
    assert machine.generation == (1 if undone else 2)
    machine.hand_over(images.honest)
    machine.assert_unharmed()


@pytest.mark.parametrize("step,backend,irq", in_turns(STEPS))
def test_batond_is_killed_at_a_step_and_the_device_does_not_notice(supervisors, images, step, backend, irq):
    kill_batond(supervisors, images, step, backend, irq, undone=step in UNDONE)


@pytest.mark.parametrize("step,backend,irq", in_turns(["saved", "loaded", "commit", "grant"]))
def test_batond_is_killed_at_a_step_that_it_orders_and_the_device_does_not_notice(supervisors, images, step, backend, irq):
    """As from an image that cannot take over by itself."""
    kill_batond(supervisors, images, step, backend, irq, undone=step != "grant", image=images.faulty("without:take-over"))
