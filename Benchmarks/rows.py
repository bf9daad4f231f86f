"""The rows of the benchmark besides the comparison: sizes, vCPU counts, speed afterwards, whole upgrades, aborts, memory, starts, lists, fleets.

Each takes a `Context` and returns a dictionary for the results; times are nanoseconds.
"""
import contextlib
import ctypes
import dataclasses
import mmap
import os
import pathlib
import tempfile
import threading
import time

import kernel_trace
import peers
from figures import percentile, spread
from support import clocks, processes
from support.busy_disk import BusyDisk
from support.control import CallFailed, Control
from support.machine import Machine
from support.supervisor import Supervisor

MADV_POPULATE_READ = 22
WALK_REQUEST, WALK_DONE, WALK_TSC = 0x88, 0x8C, 0x90


@dataclasses.dataclass
class Context:
    images: object
    trace: object
    cpus: list
    say: object
    long: bool = False
    machines: int = 16
    vcpus: tuple = (1, 4)

    def baton(self, supervisor, memory, vcpus, options="", pages=None, devices=()):
        return peers.Baton(supervisor, self.images, memory, vcpus, peers.pin(vcpus, self.cpus), self.trace, options, pages, devices)

    def qemu(self, directory, memory, vcpus, mode="cpr-transfer", newest=True, options=""):
        """The newest QEMU there is with this mode."""
        programs = peers.programs_of_qemu()
        for _, command, its, why in reversed(programs) if newest else programs:
            if command and its == mode:
                return peers.Qemu(command, mode, directory, memory, vcpus, peers.pin(vcpus, self.cpus), self.trace, options)
        raise peers.Missing("no QEMU")


def alternate(things, count, say, what):
    """`count` handovers of each, in turn, all others paused: {key: [sample]}."""
    found = {key: [] for key in things}
    for thing in things.values():
        thing.pause()
    for number in range(count):
        for key, thing in things.items():
            thing.resume()
            time.sleep(0.05)
            found[key].append(thing.sample())
            thing.pause()
        say(what, number + 1, count)
    return found


def stop_gaps(samples):
    return spread([sample["stop_gap"] for sample in samples if sample["outcome"] == "committed"])


def machines_in_turn(make, keys, count, say, what):
    """`count` handovers of each of the machines that `make(key)` gives, in turn: {key: [sample]}."""
    machines = {}
    with contextlib.ExitStack() as stack:
        for key in keys:
            machines[key] = stack.enter_context(make(key))
            machines[key].pause()
        for machine in machines.values():
            machine.resume()
        found = alternate(machines, count, say, what)
        for machine in machines.values():
            machine.resume()
        return found


def memory_sizes(context, sizes, count):
    """Blackout by touched RAM, 1 vCPU."""
    with Supervisor(context.images) as supervisor:
        found = machines_in_turn(lambda size: context.baton(supervisor, size, 1), sizes, count, context.say, "memory sizes")
    return {str(size): stop_gaps(samples) for size, samples in found.items()}


def disk_counts(context, counts, count):
    """Blackout by disks, 1 vCPU. The guest has no driver for them: they are saved and loaded with empty queues."""
    with Supervisor(context.images, disks=True) as supervisor:

        def make(number):
            paths = [supervisor.disks / f"{number}-{index}.raw" for index in range(number)]
            for path in paths:
                path.write_bytes(bytes(1 << 20))
            return context.baton(supervisor, 64, 1, devices=[{"disk": {"path": str(path)}} for path in paths])

        found = machines_in_turn(make, counts, count, context.say, "disks")
    return {
        str(number): {"gap": stop_gaps(samples), "stopped": spread([sample.get("blackout") for sample in samples])} for number, samples in found.items()}


# Those of a passed-through device with a queue for each of a few vCPUs.
VECTORS = 4


def interrupts(context, count):
    """What KVM takes for the interrupts of one passed-through device, without the device: attached in the blackout, led to a vCPU before."""
    with peers.Floor(64, 1, peers.pin(1, context.cpus)) as floor:
        samples = floor.interrupts(VECTORS, count)
        context.say("interrupts of a device", count, count)
    return {"vectors": VECTORS, **{step: spread([sample[step] for sample in samples]) for step in ("route", "attach", "detach")}}


BUSY_DISKS = {"4 KiB, 1 at a time": (1, 1), "4 KiB, 16 at a time": (16, 1), "128 KiB, 16 at a time": (16, 32)}


def io_hold(context, count):
    """For how long handovers hold back requests of a guest that is busy with its disk; what requests take otherwise, and the longest of each
    handover, as the guest sees them."""
    found = {}
    with Supervisor(context.images, disks=True) as supervisor, Control(supervisor.socket) as control:
        for name, (depth, blocks) in BUSY_DISKS.items():
            disk = BusyDisk(supervisor, f"busy-{depth}-{blocks}", depth, blocks, budget="1s")
            disk.machine.spec["vcpu-affinity"] = [[cpu] for cpu in peers.pin(1, context.cpus)]
            with disk:
                disk.reset()
                time.sleep(5)
                usual, holds, longest, failed = {"p50": disk.percentile(50), "p99": disk.percentile(99)}, [], [], []
                for number in range(count):
                    disk.machine.wait_one_worker()
                    disk.reset()
                    try:
                        record = control.upgrade(disk.machine.name, [context.images.next, context.images.honest][number % 2])
                        disk.wait_progress()
                        holds.append(record["ioHoldNanoseconds"])
                        longest.append(disk.longest)
                    except CallFailed as why:
                        failed.append(str(why))
                    context.say(f"requests held, {name}", number + 1, count)
                disk.assert_unharmed()
                found[name] = {"request": usual, "hold": spread(holds), "longest": spread(longest), "holds": holds, "longests": longest, "failed": failed}
    return found


def vcpu_counts(context, counts, count):
    """Blackout by vCPUs, of which all but the first halt between ticks; the floor's beside it."""
    found = {}
    options = "halt=1 timer=deadline"
    for number in counts:
        with Supervisor(context.images) as supervisor, context.baton(supervisor, 64, number, options) as baton:
            baton.pause()
            with peers.Floor(64, number, peers.pin(number, context.cpus), options) as floor:
                both = alternate({"baton": baton, "floor": floor}, count, context.say, f"{number} vCPUs")
                found[str(number)] = {
                    "baton": stop_gaps(both["baton"]), "floor": stop_gaps(both["floor"]),
                    "baton_kernel": spread([sample.get("kernel") for sample in both["baton"]]),
                    "floor_kernel": spread([sample["kernel"] for sample in both["floor"]])}
            baton.resume()
    return found


def walk(evidence):
    """TSC ticks in which the guest reads a word of each of its pages, now."""
    machine = 0x20000
    wanted = evidence.u32(machine + WALK_DONE) + 1
    evidence.set_u32(machine + WALK_REQUEST, wanted)
    processes.wait_until(lambda: evidence.u32(machine + WALK_DONE) == wanted, "the guest has walked its memory", pause=0.02)
    return evidence.u64(machine + WALK_TSC)


def speed_afterwards(context, count):
    """The first walk of 1 GiB after a commit against one a while later: ratios."""
    found, usual, missing = {}, {}, None

    def measure(name, evidence, handover):
        ratios, base = [], []
        walk(evidence)
        for number in range(count):
            steady = walk(evidence)
            handover()
            ratios.append(walk(evidence) / steady)
            base.append(steady * 1e6 / evidence.tsc_khz)
            context.say(f"speed after a handover, {name}", number + 1, count)
        found[name], usual[name] = spread(ratios), spread(base)

    with Supervisor(context.images) as supervisor, context.baton(supervisor, 1024, 1) as baton:
        number = iter(range(1 << 30))
        measure("baton", baton.rig.evidence, lambda: baton.rig.control.upgrade(baton.rig.name, baton.images[next(number) % 2]))
    try:
        with tempfile.TemporaryDirectory(prefix="baton-bench-") as place, context.qemu(f"{place}/q", 1024, 1) as qemu:
            measure("qemu", qemu.evidence, qemu.handover)
    except (peers.Missing, peers.qemu.Failed, AssertionError) as why:
        missing = " ".join(str(why).split())[:300]
    return {"ratio": found, "steady": usual, "qemu_missing": missing}


def populate_time(path, size):
    """How long MADV_POPULATE_READ takes in a new mapping of memory whose pages exist."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        mapping = mmap.mmap(descriptor, size)
        view = (ctypes.c_char * size).from_buffer(mapping)
        library = ctypes.CDLL(None, use_errno=True)
        began = time.monotonic_ns()
        done = library.madvise(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), MADV_POPULATE_READ)
        taken = time.monotonic_ns() - began
        del view
        mapping.close()
        return taken if done == 0 else None
    finally:
        os.close(descriptor)


class HugePages:
    """So many 2 MiB pages more, and back to as many as there were. `with HugePages(600):` raises OSError where the host does not give them."""

    path = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.before = self.path.read_text()
        wanted = int(self.before) + self.count
        self.path.write_text(f"{wanted}\n")
        if int(self.path.read_text()) < wanted:
            self.__exit__()
            raise OSError("the host has too few 2 MiB pages left")

    def __exit__(self, *_):
        self.path.write_text(self.before)


def whole_upgrade(context, count):
    """From the operator's call to its answer, 1 GiB of touched memory; MADV_POPULATE_READ of the same pages beside it."""
    found = {}

    def measure(name, pages):
        totals, populating = [], []
        with Supervisor(context.images) as supervisor, context.baton(supervisor, 1024, 1, pages=pages) as baton:
            path = processes.descriptor_path(baton.rig.machine.wait_one_worker(), "/memfd:guest-ram")
            for number in range(count):
                path = processes.descriptor_path(baton.rig.machine.wait_one_worker(), "/memfd:guest-ram")
                if path:
                    populating.append(populate_time(path, 1024 << 20))
                began = time.monotonic_ns()
                baton.rig.control.upgrade(baton.rig.name, baton.images[number % 2])
                totals.append(time.monotonic_ns() - began)
                context.say(f"whole upgrades, {name}", number + 1, count)
        found[name] = {"total": spread(totals), "populate": spread(populating)}

    measure("4KiB", "4KiB")
    try:
        with HugePages(520):
            measure("2MiB", "2MiB")
    except (OSError, AssertionError) as why:
        found["2MiB_missing"] = " ".join(str(why).split())[:200]
    return found


def aborts(context, count):
    """From the checkpoint's being there, which the incoming worker refuses at once, until the guest runs: the refusal's way is in it."""
    bad = context.images.faulty("error@load")
    after, whole = [], []
    with Supervisor(context.images) as supervisor, context.baton(supervisor, 64, 1) as baton:
        rig = baton.rig
        for number in range(count):
            rig.machine.wait_one_worker()

            def seen(step):
                if (step["phase"], step["state"]) == ("prepared", "end"):
                    rig.evidence.reset_gaps()

            try:
                rig.control.upgrade(rig.name, bad, seen)
            except CallFailed:
                pass
            rig.evidence.wait_progress(20)
            record = rig.control.call("History", machine=rig.name)["handovers"][0]
            steps = clocks.step_times(record)
            if record["outcome"] == "aborted" and "saved" in steps:
                over = clocks.gaps_over(rig.evidence, steps["park"][0], steps["saved"][1])
                if over:
                    gap = max(over, key=lambda gap: gap.ns)
                    whole.append(gap.ns)
                    after.append(gap.ended_ns - steps["saved"][1])
            context.say("aborts", number + 1, count)
    return {"saved_to_running": spread(after), "gap": spread(whole)}


def private_memory(context):
    """Private_Dirty of all mappings but guest memory, and page tables; of an idle machine of 64 MiB, beside another one of its image and alone."""
    found = {}

    def note(name, pid, memory="guest-ram"):
        dirty, tables = peers.private_bytes(pid, memory)
        found[name] = {"dirty": dirty, "page_tables": tables}

    with Supervisor(context.images) as supervisor, context.baton(supervisor, 64, 1, "halt=2 timer=deadline") as baton:
        time.sleep(0.5)
        note("worker_alone", baton.rig.machine.wait_one_worker())
        note("batond", supervisor.batond)
        note("keeper", supervisor.keeper.pid)
        # The image's one copy of the host counts as this worker's own as long as nobody else maps it.
        Machine(supervisor, "another", image=context.images.honest, vcpus=1, memory="16MiB", cmdline="halt=2 timer=deadline").run()
        time.sleep(0.5)
        note("worker", baton.rig.machine.wait_one_worker())
    try:
        with tempfile.TemporaryDirectory(prefix="baton-bench-") as place, context.qemu(f"{place}/q", 64, 1, options="halt=2 timer=deadline") as one:
            time.sleep(0.5)
            note("qemu", one.process.pid, "memory-backend-memfd")
    except (peers.Missing, peers.qemu.Failed) as why:
        found["qemu_missing"] = str(why)
    return found


def first_run(trace, since):
    """How long after `since` the first vCPU entered the guest."""
    entered = [event.ns for event in trace.events() if event.entered and event.ns >= since]
    return min(entered) - since if entered else None


def cold_starts(context, count):
    """From the command to the first KVM_RUN."""
    if not context.trace:
        return {"missing": "takes the kernel's tracepoints"}
    ours, theirs, missing = [], [], None
    with Supervisor(context.images) as supervisor:
        for number in range(count):
            machine = Machine(supervisor, f"cold-{number}", vcpus=1, memory="64MiB", cmdline="report-ms=1000")
            machine.write()
            context.trace.follow([supervisor.batond, supervisor.keeper.pid])
            context.trace.clear()
            began = time.monotonic_ns()
            done = supervisor.baton("run", machine.file)
            assert done.code == 0, done
            ours.append(first_run(context.trace, began))
            supervisor.baton("stop", machine.name, "--force")
            context.say("cold starts", number + 1, count)
    try:
        for number in range(count):
            with tempfile.TemporaryDirectory(prefix="baton-bench-") as place:
                machine = context.qemu(f"{place}/q", 64, 1)
                context.trace.follow([os.getpid()])
                context.trace.clear()
                began = time.monotonic_ns()
                with machine:
                    theirs.append(first_run(context.trace, began))
                    machine.trace = None
    except (peers.Missing, peers.qemu.Failed) as why:
        missing = str(why)
    return {"baton": spread(ours), "qemu": spread(theirs), "qemu_missing": missing}


def fleet(context, count, at_once, memory="16MiB"):
    """`count` halting machines, upgraded so many at a time; what `baton list` takes with them, and what they cost the supervisor."""
    found = {"machines": count, "at_once": at_once}
    with Supervisor(context.images) as supervisor:
        names = [f"fleet-{number}" for number in range(count)]
        for done, name in enumerate(names):
            machine = Machine(supervisor, name, vcpus=1, memory=memory, cmdline="halt=2 timer=deadline deadline-us=2000000 report-ms=60000 pit-hz=0", budget="1s")
            result = supervisor.baton("run", machine.write())
            assert result.code == 0, result
            context.say("starting machines", done + 1, count)
        listing = []
        for _ in range(10):
            began = time.monotonic_ns()
            supervisor.baton("list")
            listing.append(time.monotonic_ns() - began)
        found["list"] = spread(listing)
        found["memory"] = {"worker": peers.private_bytes(next(iter(supervisor.workers(names[0]).values()))), "batond": peers.private_bytes(supervisor.batond), "keeper": peers.private_bytes(supervisor.keeper.pid)}
        queue, records, failures, lock = list(names), [], [], threading.Lock()

        def work():
            with Control(supervisor.socket) as control:
                while True:
                    with lock:
                        if not queue:
                            return
                        name = queue.pop()
                    try:
                        record = control.upgrade(name, context.images.next)
                        with lock:
                            records.append(record)
                    except (CallFailed, OSError) as why:
                        with lock:
                            failures.append(f"{name}: {why}")

        workers = [threading.Thread(target=work) for _ in range(at_once)]
        began = time.monotonic_ns()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found["took"] = time.monotonic_ns() - began
        found["committed"], found["failures"] = len(records), failures[:5]
        found["blackout"] = spread([record["blackoutNanoseconds"] for record in records])
        found["total"] = spread([record["totalNanoseconds"] for record in records])
    return found
