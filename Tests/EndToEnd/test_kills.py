"""SIGKILL and SIGSTOP of every process at every step: the guest runs on, or the handover ends by the commit word."""
import random
import signal
import time

import pytest

from support import processes, programs
from support.machine import Machine
from support.processes import is_held, wait_until

pytestmark = pytest.mark.kvm


def hold_incoming(machine, fault, generation=2):
    """Starts an upgrade to an image with that fault, and waits until its worker is held there."""
    command = machine.start_upgrade(machine.supervisor.images.faulty(fault))
    pid = machine.wait_worker(generation)
    wait_until(lambda: is_held(pid), lambda: f"the incoming worker is held: {fault}")
    return command, pid


def assert_good_upgrade(machine):
    done = machine.upgrade(machine.supervisor.images.next)
    assert done.code == 0, done
    machine.assert_runs()


# The incoming worker

INCOMING = ["hello", "lend", "map", "build", "populate", "prepared", "practise", "load", "loaded"]


@pytest.mark.parametrize("step", INCOMING)
def test_the_incoming_worker_is_killed_before_commit_and_the_outgoing_one_runs_on(machine, step):
    machine.evidence.reset_counters()
    outgoing = machine.pid
    command, pid = hold_incoming(machine, f"hang@{step}")
    processes.kill(pid)
    done = machine.finish(command)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert "SIGKILL" in done.reason and "incoming worker" in done.reason, done
    machine.assert_runs(gap_ms=5000)
    assert machine.pid == outgoing
    assert_good_upgrade(machine)


@pytest.mark.parametrize("step", INCOMING)
def test_the_incoming_worker_is_stopped_before_commit_and_the_outgoing_one_runs_on(supervisors, step):
    supervisor = supervisors("--answer-seconds", "2", "--prepare-seconds", "2")
    machine = Machine(supervisor, budget="1500ms").run()
    machine.evidence.reset_counters()
    command, pid = hold_incoming(machine, f"delay:1@{step} hang@{step}")
    processes.kill(pid, signal.SIGSTOP)
    done = machine.finish(command)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert "no answer within" in done.reason, done
    machine.assert_runs(gap_ms=4000)
    wait_until(lambda: not processes.is_alive(pid), "the incoming worker is gone")
    assert_good_upgrade(machine)


def test_the_incoming_worker_is_killed_as_it_takes_the_grant_and_another_takes_the_checkpoint(machine):
    machine.evidence.reset_counters()
    command, pid = hold_incoming(machine, "hang@grant")
    processes.kill(pid)
    done = machine.finish(command)
    assert (done.code, done.error) == (5, "Reverted"), done
    machine.assert_runs(state="reverted")
    assert machine.version == "1.0.0"
    assert_good_upgrade(machine)


# The outgoing worker


def test_a_stopped_outgoing_worker_is_continued_and_the_handover_aborted(supervisors, images):
    """Somebody stops it while the incoming worker is prepared: practise is not answered."""
    supervisor = supervisors("--answer-seconds", "2")
    machine = Machine(supervisor).run()
    outgoing = machine.pid
    machine.evidence.reset_counters()
    command, incoming = hold_incoming(machine, "delay:1500@prepared")
    processes.kill(outgoing, signal.SIGSTOP)
    done = machine.finish(command)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["step"] == "practise" and "outgoing worker" in done.reason, done
    machine.assert_runs()
    assert machine.pid == outgoing
    assert_good_upgrade(machine)


def test_an_outgoing_worker_stopped_in_the_blackout_is_taken_forward_or_aborted(supervisors, images):
    """It has saved and cannot end its freeze. Either way one worker runs the guest from where it was."""
    supervisor = supervisors("--answer-seconds", "2")
    machine = Machine(supervisor, budget="2s").run()
    outgoing, boot = machine.pid, machine.evidence.boot_tsc
    machine.evidence.reset_counters()
    command, incoming = hold_incoming(machine, "delay:1000@load")
    processes.kill(outgoing, signal.SIGSTOP)
    done = machine.finish(command)
    assert done.code in (0, 4), done
    machine.assert_runs()
    assert machine.evidence.boot_tsc == boot


@pytest.mark.parametrize("policy", ["reset", "stop"])
@pytest.mark.parametrize("step", ["hello", "build", "prepared"])
def test_the_outgoing_worker_is_killed_before_saved_and_the_crash_policy_applies(machines, images, step, policy):
    machine = machines(on_crash=policy)
    outgoing, boot = machine.pid, machine.evidence.boot_tsc
    command, incoming = hold_incoming(machine, f"delay:700@{step}")
    processes.kill(outgoing)
    done = machine.finish(command)
    assert done.code == 1 and f"crash policy: {policy}" in done.reason, done
    wait_until(lambda: incoming not in machine.workers.values(), "the incoming worker is gone")
    if policy == "reset":
        machine.evidence.wait_booted(other_than=boot)
        machine.wait_state("running")
        machine.assert_runs()
        assert_good_upgrade(machine)
    else:
        machine.wait_state("crashed")
        wait_until(lambda: not machine.workers, "no worker stays")


@pytest.mark.parametrize("step", ["preflight", "practise", "settle", "park", "save"])
def test_the_outgoing_worker_is_killed_as_it_stops_its_guest_and_the_crash_policy_applies(machines, images, step):
    machine = machines(image=images.faulty(f"hang@{step}"), on_crash="reset")
    outgoing, boot = machine.pid, machine.evidence.boot_tsc
    command = machine.start_upgrade(images.next)
    wait_until(lambda: is_held(outgoing), "the outgoing worker is held")
    processes.kill(outgoing)
    done = machine.finish(command)
    assert done.code == 1 and "crash policy: reset" in done.reason and "SIGKILL" in done.reason, done
    machine.evidence.wait_booted(other_than=boot)
    machine.wait_state("running")
    machine.assert_runs()


def test_an_outgoing_worker_stopped_before_an_upgrade_is_continued(supervisors, images):
    supervisor = supervisors("--answer-seconds", "1")
    machine = Machine(supervisor).run()
    processes.kill(machine.pid, signal.SIGSTOP)
    done = machine.upgrade(images.next)
    assert (done.code, done.error) == (4, "Aborted"), done
    assert done.parameters["step"] == "preflight", done
    machine.assert_runs()
    assert_good_upgrade(machine)


@pytest.mark.parametrize("step", ["load", "loaded"])
def test_the_outgoing_worker_is_killed_after_saved_and_the_handover_is_finished_forward(machines, step):
    machine = machines(budget="10s")
    outgoing, boot = machine.pid, machine.evidence.boot_tsc
    machine.evidence.reset_counters()
    command, incoming = hold_incoming(machine, f"delay:1000@{step}")
    processes.kill(outgoing)
    done = machine.finish(command)
    assert done.code == 0, done
    machine.assert_runs()
    assert (machine.pid, machine.generation, machine.evidence.boot_tsc) == (incoming, 2, boot)
    assert_good_upgrade(machine)


def test_both_workers_are_killed_after_saved_and_a_third_takes_the_checkpoint(machines):
    machine = machines(budget="10s")
    outgoing, boot = machine.pid, machine.evidence.boot_tsc
    command, incoming = hold_incoming(machine, "delay:1500@load")
    processes.kill(outgoing)
    processes.kill(incoming)
    done = machine.finish(command)
    assert done.code in (0, 5), done
    machine.wait_one_worker()
    machine.evidence.assert_unharmed()
    assert machine.evidence.boot_tsc == boot


# batond

# Between *save* and *running* the workers go on without batond, which hears of it afterwards; unless an image cannot take over: then batond orders
# each step.
BEFORE = ["preflight", "spawn", "hello", "lend", "map", "prepared", "practise", "settle", "park", "save"]
HELD = ["park", "save"]  # the devices are settled and wait, for a second; the guest runs
TAKEN = ["saved", "load", "loaded", "commit", "grant", "running", "fence", "take-addresses", "retire", "soak"]
FROZEN = ["saved", "load", "loaded", "commit"]  # by orders: the outgoing worker has frozen; its deadline runs
ORDERED = ["settle", *HELD, *FROZEN, "grant", "running"]  # from grant on the word names the incoming worker, which waits for its grant


def steps(undone):
    """Each step, whether the supervisor orders it, and whether the handover is undone by the word when batond ends there."""
    return ([(step, False, step in undone) for step in BEFORE + TAKEN]
            + [(step, True, step in undone or step in FROZEN) for step in ORDERED])


def names(value):
    return {True: "yes", False: "no"}.get(value, value)


class Held:
    """A machine whose supervisor stops at a step of its first handover. `ordered`: its image cannot take over."""

    def __init__(self, supervisors, images, step, ordered=False, incoming=None, **options):
        self.supervisor = supervisors("--answer-seconds", "3", hold=step)
        self.marker = self.supervisor.marker
        image = images.faulty("without:take-over") if ordered else images.honest
        self.machine = Machine(self.supervisor, image=image, soak="500ms" if step == "soak" else "0s", **options).run()
        self.version = self.machine.version
        self.machine.evidence.reset_counters()
        self.command = self.machine.start_upgrade(incoming or images.next)
        wait_until(self.marker.exists, f"batond is held at {step}")
        self.batond = self.supervisor.batond
        self.boot = self.machine.evidence.boot_tsc


@pytest.mark.held
@pytest.mark.parametrize("step, ordered, undone", steps(BEFORE), ids=names)
def test_batond_is_killed_at_a_step_and_the_next_one_adopts(supervisors, images, step, ordered, undone):
    held = Held(supervisors, images, step, ordered, budget="2s")
    machine, supervisor = held.machine, held.supervisor
    processes.kill(held.batond)
    done = machine.finish(held.command)
    assert (done.code, done.error) != (0, None), done
    supervisor.wait_other_batond(held.batond)
    wait_until(lambda: machine.state in ("running", "soaking", "reverted"), lambda: f"{machine.show()}\n{supervisor.log}", pause=0.05)
    pid = machine.wait_one_worker()
    assert pid == machine.pid
    machine.evidence.assert_unharmed()
    assert machine.evidence.boot_tsc == held.boot, "the guest was not restarted"
    wait_until(lambda: machine.state in ("running", "reverted"), "it runs", pause=0.05)
    record = machine.history()[0]
    if undone:
        assert (machine.version, machine.generation, record["outcome"], record["toGeneration"]) == (held.version, 1, "aborted", 1)
        done = machine.upgrade(images.next)
    else:
        assert (machine.version, machine.generation, record["outcome"], record["toGeneration"]) == ("1.1.0", 2, "committed", 2)
        done = machine.rollback()
    assert record["toImage"]["version"] == "1.1.0"
    assert done.code == 0, done
    machine.assert_runs()


@pytest.mark.held
@pytest.mark.parametrize("step, ordered, undone", steps(HELD), ids=names)
def test_batond_is_stopped_at_a_step_for_longer_than_the_budget(supervisors, images, step, ordered, undone):
    """The guest runs on, whoever the commit word names. Continued, the handover ends by that word."""
    held = Held(supervisors, images, step, ordered, budget="1s" if ordered and step in FROZEN else "5s")
    machine, supervisor = held.machine, held.supervisor
    processes.stop(held.batond)
    held.marker.unlink()
    time.sleep(1.5)
    # Frozen, the outgoing worker ends its freeze; committed, the incoming one, seeing no grant, goes by the commit word.
    machine.evidence.wait_progress(seconds=10)
    processes.kill(held.batond, signal.SIGCONT)
    # What is held is held once; the marker is made again where the step comes again.
    done = machine.finish(held.command)
    if undone:
        assert (done.code, done.error) == (4, "Aborted"), done
    else:
        assert done.code == 0, done
    machine.assert_runs(devices_held=step in HELD)
    assert machine.evidence.boot_tsc == held.boot
    assert machine.generation == (1 if undone else 2)
    assert supervisor.batond == held.batond


@pytest.mark.parametrize("number, step", [(signal.SIGKILL, "load"), (signal.SIGKILL, "loaded"), (signal.SIGSTOP, "load"), (signal.SIGSTOP, "loaded")])
def test_nobody_needs_batond_between_the_stop_and_the_first_instruction(machines, supervisor, images, number, step):
    """The incoming worker takes a second for its checkpoint, and goes on with it while batond is dead or stopped; a next batond that is there sooner
    has the outgoing one run on."""
    machine = machines(budget="10s")
    boot, batond = machine.evidence.boot_tsc, supervisor.batond
    machine.evidence.reset_counters()
    command, incoming = hold_incoming(machine, f"delay:1000@{step}")
    processes.kill(batond, number)
    machine.evidence.wait_progress(seconds=5)
    if number == signal.SIGKILL:
        machine.finish(command)
        supervisor.wait_other_batond(batond)
    else:
        processes.kill(batond, signal.SIGCONT)
        assert machine.finish(command).code == 0
    machine.assert_runs(gap_ms=4000)
    taken = machine.pid == incoming
    assert taken or number == signal.SIGKILL
    assert (machine.generation, machine.evidence.boot_tsc) == (2 if taken else 1, boot)
    assert machine.history()[0]["outcome"] == ("committed" if taken else "aborted")
    assert_good_upgrade(machine)


@pytest.mark.parametrize("delay", [150, 250, 350, 450])
def test_batond_is_killed_while_the_outgoing_worker_saves_and_whoever_wins_is_the_one_that_is_kept(machines, supervisor, images, delay):
    """The next batond orders it to run on as the incoming one takes over."""
    machine = machines(image=images.faulty(f"delay:{delay}@save"), budget="10s")
    boot, batond, outgoing = machine.evidence.boot_tsc, supervisor.batond, machine.pid
    machine.evidence.reset_counters()
    command = machine.start_upgrade(images.next)
    wait_until(lambda: is_held(outgoing), "the outgoing worker is held")
    processes.kill(batond)
    machine.finish(command)
    supervisor.wait_other_batond(batond)
    machine.assert_runs()
    taken = machine.generation == 2
    print("the incoming one" if taken else "the outgoing one")
    assert machine.evidence.boot_tsc == boot
    assert machine.history()[0]["outcome"] == ("committed" if taken else "aborted")
    assert_good_upgrade(machine)


def test_a_freeze_that_ends_as_the_incoming_worker_commits_leaves_one_of_them_running(machines, images):
    """The incoming worker loads for as long as the budget: the commit word decides, a little differently each time."""
    machine = machines(budget="100ms")
    boot = machine.evidence.boot_tsc
    outcomes = []
    for delay in (97, 98, 99, 100) * (25 if programs.LONG else 3):
        done = machine.upgrade(images.faulty(f"delay:{delay}@load"))
        outcomes.append(done.code)
        assert done.code in (0, 4), done
        machine.assert_runs()
        assert machine.evidence.boot_tsc == boot
    assert machine.history()[0]["outcome"] in ("committed", "aborted")
    print(f"committed {outcomes.count(0)}, aborted {outcomes.count(4)}")


@pytest.mark.parametrize("delay", [5, 100])
def test_an_operator_aborts_while_the_incoming_worker_takes_over_and_one_of_them_runs(machines, supervisor, images, delay):
    machine = machines(budget="2s")
    boot = machine.evidence.boot_tsc
    for number in range(4):
        generation = machine.generation
        command = machine.start_upgrade(images.faulty(f"delay:{delay}@load"))
        incoming = machine.wait_worker(generation + 1)
        wait_until(lambda: is_held(incoming) or not processes.is_alive(incoming) or machine.generation > generation, "it loads")
        time.sleep(number * delay / 3000)
        supervisor.baton("abort", machine.name)
        done = machine.finish(command)
        assert done.code in (0, 4), done
        machine.assert_runs()
        assert machine.generation == generation + (done.code == 0)
        assert machine.evidence.boot_tsc == boot


@pytest.mark.held
def test_devices_settled_for_a_handover_that_nobody_goes_on_with_come_back_by_themselves(supervisors, images):
    held = Held(supervisors, images, "save", budget="5s")
    machine = held.machine

    def pit():
        return next(ticker.ticks for ticker in machine.evidence.tickers() if ticker.name == "PIT")

    processes.stop(held.batond)
    held.marker.unlink()
    before = pit()
    wait_until(lambda: pit() >= before + 10, lambda: f"the PIT ticks again\n{machine.evidence.describe()}")
    processes.kill(held.batond, signal.SIGCONT)
    done = machine.finish(held.command)
    assert (done.code, done.error) == (4, "Aborted"), done
    machine.assert_runs(devices_held=True)
    held.marker.touch()  # the step comes again, and is not held again
    assert machine.upgrade(images.next).code == 0


def assert_next_batond_goes_on_without(held, generation):
    """batond and the worker of that generation are killed together; the same guest runs on in a later one."""
    machine, supervisor = held.machine, held.supervisor
    worker = machine.workers[generation]
    processes.stop(held.batond)
    processes.kill(worker)
    processes.kill(held.batond)
    machine.finish(held.command)
    supervisor.wait_other_batond(held.batond)
    wait_until(lambda: machine.state in ("running", "reverted"), lambda: f"{machine.show()}\n{supervisor.log}", pause=0.05)
    machine.wait_one_worker()
    machine.evidence.assert_unharmed()
    assert machine.evidence.boot_tsc == held.boot
    assert machine.generation > generation


@pytest.mark.held
@pytest.mark.parametrize("step", ["saved", "loaded"])
def test_batond_and_the_outgoing_worker_are_killed_after_saved_and_the_next_batond_goes_forward(supervisors, images, step):
    assert_next_batond_goes_on_without(Held(supervisors, images, step, ordered=True, budget="10s"), generation=1)


@pytest.mark.held
@pytest.mark.parametrize("ordered", [False, True])
def test_batond_and_the_incoming_worker_are_killed_after_commit_and_another_takes_the_checkpoint(supervisors, images, ordered):
    if ordered:
        return assert_next_batond_goes_on_without(Held(supervisors, images, "grant", ordered=True, budget="10s"), generation=2)
    held = Held(supervisors, images, "save", incoming=images.faulty("hang@grant"), budget="10s")
    incoming = held.machine.wait_worker(2)
    held.marker.unlink()
    wait_until(lambda: is_held(incoming), "the incoming worker is held")
    assert_next_batond_goes_on_without(held, generation=2)


@pytest.mark.held
def test_batond_and_the_outgoing_worker_are_killed_while_the_incoming_one_takes_over(supervisors, images):
    held = Held(supervisors, images, "save", incoming=images.faulty("delay:1500@load"), budget="10s")
    incoming = held.machine.wait_worker(2)
    held.marker.unlink()
    wait_until(lambda: is_held(incoming), "the incoming worker is held")
    assert_next_batond_goes_on_without(held, generation=1)
    assert held.machine.pid == incoming


def test_batond_is_killed_while_another_worker_prepares_to_take_the_checkpoint(machines, images, supervisor):
    """The first incoming worker died after the grant; the checkpoint is two generations older than the word says."""
    machine = machines(image=images.faulty("delay:1200@build"))
    boot, past = machine.evidence.boot_tsc, supervisor.batond
    machine.evidence.reset_counters()
    command = machine.start_upgrade(images.faulty("die-after-grant"))
    third = machine.wait_worker(3)
    wait_until(lambda: is_held(third), "the worker that takes its place is held in prepare")
    processes.kill(past)
    machine.finish(command)
    supervisor.wait_other_batond(past)
    wait_until(lambda: machine.state in ("running", "reverted"), lambda: f"{machine.show()}\n{supervisor.log}", pause=0.05)
    machine.wait_one_worker()
    assert machine.evidence.boot_tsc == boot
    machine.evidence.assert_unharmed()
    assert machine.generation > 3


def test_batond_is_killed_at_moments_nobody_chose(machine, supervisor, images):
    """A few rounds, a hundred in the long form: whatever was under way, one worker runs the guest from where it was."""
    choices = random.Random(7)
    pool = [images.next, images.honest, images.faulty("error@load"), images.faulty("die-after-grant")]
    boot = machine.evidence.boot_tsc
    for number in range(100 if programs.LONG else 5):
        command = machine.start_upgrade(choices.choice(pool))
        time.sleep(choices.random() * 0.2)
        past = supervisor.batond
        processes.kill(past)
        machine.finish(command)
        supervisor.wait_other_batond(past)
        wait_until(lambda: machine.state in ("running", "reverted", "crashed"), "the machine's state is known", pause=0.05)
        machine.wait_one_worker()
        machine.evidence.wait_progress()
        assert (machine.evidence.boot_tsc, machine.evidence.damage) == (boot, 0), f"round {number}"
    machine.evidence.assert_unharmed(devices_held=True)


def test_batond_is_killed_while_nothing_is_done(machine, supervisor, images):
    machine.evidence.reset_counters()
    assert machine.upgrade(images.next).code == 0
    pid, history = machine.pid, machine.history()
    for _ in range(3):
        past = supervisor.batond
        processes.kill(past)
        supervisor.wait_other_batond(past)
        machine.assert_runs()
        assert machine.pid == pid
    assert machine.history() == history
    shown = machine.show()["machine"]
    assert (shown["generation"], shown["image"]["version"], shown["revertableTo"]["version"]) == (2, "1.1.0", "1.0.0")
    assert [event["kind"] for event in machine.events()] == ["adopted"]
    assert machine.rollback().code == 0
    machine.assert_runs()


def test_batond_is_killed_during_soak_and_the_next_one_goes_on_watching(machines, supervisor, images):
    machine = machines(soak="3s")
    machine.evidence.reset_counters()
    command = machine.start_upgrade(images.next)
    machine.wait_state("soaking")
    past = supervisor.batond
    processes.kill(past)
    done = machine.finish(command)
    assert done.error == "ConnectionLost" or done.code == 1, done
    supervisor.wait_other_batond(past)
    assert machine.state == "soaking"
    machine.wait_state("running")
    machine.assert_runs()
    assert machine.generation == 2


def test_batond_is_killed_during_soak_and_the_next_one_reverts_an_image_that_is_ill(machines, supervisor, images):
    """It is ill from one second on, which is after the first supervisor's end."""
    machine = machines(soak="20s")
    command = machine.start_upgrade(images.faulty("ill-after:1500"))
    machine.wait_state("soaking")
    past = supervisor.batond
    processes.kill(past)
    machine.finish(command)
    supervisor.wait_other_batond(past)
    machine.wait_state("reverted")
    assert (machine.version, machine.generation) == ("1.0.0", 3)
    machine.assert_runs(state="reverted")
    assert [record["outcome"] for record in machine.history()] == ["committed", "reverted"]


def test_batond_is_killed_while_a_machine_is_paused(machine, supervisor, images):
    assert supervisor.baton("pause", "web1").code == 0
    past = supervisor.batond
    processes.kill(past)
    supervisor.wait_other_batond(past)
    assert machine.state == "paused"
    assert machine.evidence.stands_still()
    assert machine.upgrade(images.next).error == "Refused"
    assert supervisor.baton("resume", "web1").code == 0
    machine.assert_runs()
    assert_good_upgrade(machine)


def test_batond_is_killed_and_the_worker_dies_before_the_next_one_adopts(machines, supervisor):
    machine = machines(on_crash="reset")
    boot, past, pid = machine.evidence.boot_tsc, supervisor.batond, machine.pid
    processes.kill(past, signal.SIGSTOP)
    processes.kill(pid)
    processes.kill(past)
    supervisor.wait_other_batond(past)
    machine.evidence.wait_booted(other_than=boot)
    machine.wait_state("running")
    machine.assert_runs()


def test_descriptors_stay_the_same_however_often_batond_is_killed(machine, supervisor, images):
    def kill_and_upgrade(image):
        past = supervisor.batond
        processes.kill(past)
        supervisor.wait_other_batond(past)
        assert machine.upgrade(image).code == 0

    kill_and_upgrade(images.next)
    kill_and_upgrade(images.honest)
    first = machine.descriptors()
    for _ in range(2):
        kill_and_upgrade(images.next)
        kill_and_upgrade(images.honest)
    assert machine.descriptors() == first
    machine.assert_runs()


def test_the_keeper_dies_and_guests_run_on(machine, supervisor):
    pid = machine.pid
    batond = supervisor.batond
    supervisor.keeper.kill()
    supervisor.keeper.wait()
    machine.evidence.wait_progress()
    assert processes.is_alive(pid)
    assert machine.evidence.damage == 0
    processes.kill(batond)
    wait_until(lambda: not processes.is_alive(batond), "batond is gone")
    machine.evidence.wait_progress()


def test_a_batond_that_cannot_start_is_tried_again(supervisors, images, tmp_path):
    """The keeper goes on trying; what it holds stays."""
    program = tmp_path / "batond"
    program.symlink_to(programs.BATOND)
    supervisor = supervisors(batond=program)
    machine = Machine(supervisor).run()
    past = supervisor.batond
    program.unlink()
    processes.kill(past)
    supervisor.wait_log("cannot start")
    machine.evidence.wait_progress()
    program.symlink_to(programs.BATOND)
    supervisor.wait_other_batond(past)
    machine.assert_runs()
