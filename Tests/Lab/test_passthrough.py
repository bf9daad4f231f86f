"""A device does its work, memory and interrupts, while the process that runs its guest is replaced.

`edu` copies without a pause: 100 ms each, an interrupt at the end. Whatever happens to workers, the data is right, there is one interrupt for each
copy, and the host's device is never reset: a reset would end the copy and its interrupt would never come.
"""
import pytest

from guests.passed import give_away, wait_charged
from guests.passthrough import EDU, OTHER_EDU, EduMachine, interrupts, routings, step
from support import programs

pytestmark = pytest.mark.handover

ROUNDS = 100 if programs.LONG else 20
COPY = 100  # ms
BACKENDS = ["iommufd", "container"]
INTERRUPTS = ["msi", "intx"]


@pytest.fixture(scope="module", autouse=True)
def device():
    give_away(EDU)
    give_away(OTHER_EDU)


@pytest.fixture
def edu(supervisor):
    """Runs the guest: `edu("iommufd", "msi")`."""

    def run(backend, irq="msi", **options):
        return EduMachine(supervisor, backend, irq, **options).run()

    return run


def spread(values):
    values = sorted(values)
    return f"median {values[len(values) // 2]:.1f} ms, most {values[-1]:.1f} ms"


@pytest.mark.parametrize("irq", INTERRUPTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_that_ends_in_the_blackout_interrupts_once(edu, images, figures, backend, irq):
    """The blackout is held open for 150 ms. Rounds in which the host took no interrupt between *saved* and *running* do not count."""
    held = [images.faulty(f"delay:{hold}@load") for hold in (150, 151)]
    machine = edu(backend, irq)
    counted, made, blackouts = 0, 0, []
    with interrupts() as trace:
        while counted < ROUNDS and made < 3 * ROUNDS:
            record = machine.hand_over(held[made % 2])
            machine.wait_rounds(1)
            begin, end = step(record, "saved"), step(record, "running")
            counted += any(begin < time < end for time in trace.times())
            blackouts.append(record["blackoutNanoseconds"] / 1e6)
            made += 1
    machine.assert_unharmed()
    figures(f"{backend}, {irq}: {counted} of {made} blackouts with an interrupt in them; {spread(blackouts)}; longest copy {machine.account[4]} ms")
    assert counted >= ROUNDS


@pytest.mark.parametrize("irq", INTERRUPTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_goes_through_handovers_that_are_not_held(edu, images, figures, backend, irq):
    """An interrupt is late by what a copy takes more than its 100 ms; the longest of all rounds is printed."""
    machine = edu(backend, irq)
    before = machine.wait_rounds(10, 60)[4]
    records = []
    for number in range(ROUNDS):
        records.append(machine.hand_over(images.next if number % 2 == 0 else images.honest))
        machine.wait_rounds(1)
    machine.assert_unharmed()
    figures(f"{backend}, {irq}: blackout {spread([record['blackoutNanoseconds'] / 1e6 for record in records])}; an interrupt came at most "
            f"{machine.account[4] - COPY} ms late, {before - COPY} ms without handovers")


@pytest.mark.parametrize("irq", INTERRUPTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_abort_gives_the_old_worker_the_interrupt(edu, images, figures, backend, irq):
    """The incoming worker takes its time, and fails when it has loaded. Rounds without an interrupt meanwhile do not count, nor those that were
    aborted earlier, as on a host with other work."""
    bad = images.faulty("delay:150@load error@loaded")
    machine = edu(backend, irq)
    pid = machine.pid
    counted = made = 0
    with interrupts() as trace:
        while counted < ROUNDS and made < 3 * ROUNDS:
            assert machine.upgrade(bad).code == 4
            machine.wait_rounds(1)
            record = machine.history()[0]
            made += 1
            if "saved" not in [past["phase"] for past in record["steps"]]:
                continue
            begin = step(record, "saved")
            counted += any(begin < time < begin + 150_000_000 for time in trace.times())
    machine.assert_unharmed()
    assert machine.pid == pid
    figures(f"{backend}, {irq}: {counted} of {made} aborts with an interrupt before them")
    assert counted >= ROUNDS


@pytest.mark.parametrize("irq", INTERRUPTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_that_ends_between_settle_and_stop_interrupts_once(edu, images, figures, backend, irq):
    """The vCPUs run on for 150 ms after devices were settled. Rounds without an interrupt meanwhile do not count."""
    slow = [images.faulty(f"delay:{hold}@park") for hold in (150, 151)]
    machine = edu(backend, irq, image=slow[0])
    counted = made = 0
    with interrupts() as trace:
        while counted < ROUNDS and made < 3 * ROUNDS:
            record = machine.hand_over(slow[(made + 1) % 2])
            machine.wait_rounds(1)
            begin, end = step(record, "settle"), step(record, "park")
            counted += any(begin < time < end for time in trace.times())
            made += 1
    machine.assert_unharmed()
    figures(f"{backend}, {irq}: {counted} of {made} settled devices interrupted before the stop")
    assert counted >= ROUNDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_charge_for_memory_goes_from_worker_to_worker(edu, images, backend):
    """As iommufd's accounting by user and containers' by process show it; workers have no CAP_IPC_LOCK."""
    machine = edu(backend)
    for image in (images.next, images.honest, images.next):
        wait_charged(machine.pid, backend, 64 << 20)
        machine.hand_over(image)
    wait_charged(machine.pid, backend, 64 << 20)
    machine.assert_unharmed()


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_interrupts_lead_is_told_before_the_blackout(edu, images, backend):
    """Where both images know how; to and from one that does not it is done in the blackout, and nothing else differs."""
    machine = edu(backend, "msi")
    old = images.faulty("without:blueprint-4")
    with routings() as trace:
        for image, expected in ((images.next, (2, 0)), (images.honest, (2, 0)), (old, (1, 1)), (images.next, (1, 1)), (images.honest, (2, 0))):
            record = machine.hand_over(image)
            machine.wait_rounds(1)
            built, stopped, running = step(record, "preflight"), step(record, "park", end=False), step(record, "running")
            times = trace.times()
            # A new VM is told of its pins in any case.
            assert (sum(built < time < stopped for time in times), sum(stopped < time < running for time in times)) == expected, image
    machine.assert_unharmed()


@pytest.mark.parametrize("irq", INTERRUPTS)
@pytest.mark.parametrize("backends", [("iommufd", "iommufd"), ("container", "container"), ("iommufd", "container")], ids="-".join)
def test_two_devices_go_through_handovers(edu, images, figures, backends, irq):
    machine = edu(backends[0], irq, others=backends[1:])
    records = []
    for number in range(ROUNDS // 2):
        records.append(machine.hand_over(images.next if number % 2 == 0 else images.honest))
        machine.wait_rounds(1)
    machine.assert_unharmed()
    figures(f"{' and '.join(backends)}, {irq}: blackout {spread([record['blackoutNanoseconds'] / 1e6 for record in records])}")


def test_devices_of_a_container_reach_each_other_before_and_after_handovers(edu, images):
    machine = edu("container", "msi", others=("container",), peers=True)
    for image in (images.next, images.honest, images.next):
        machine.hand_over(image)
        machine.wait_rounds(2)
    machine.assert_unharmed()
