"""A guest that is busy with its disk: through handovers, and such as fail, every request is answered, and data is what was written last."""
import pytest

from support import processes
from support.busy_disk import BusyDisk
from support.processes import wait_until

pytestmark = pytest.mark.kvm


@pytest.fixture
def busy(supervisors):
    """Makes machines with a busy disk. `hold`: a step at which batond stops once."""
    made = []

    def make(hold=None, **options):
        supervisor = supervisors("--answer-seconds", "3", "--prepare-seconds", "10", hold=hold, disks=True)
        made.append(BusyDisk(supervisor, **options).run())
        return made[-1]

    yield make
    for disk in made:
        disk.close()


@pytest.mark.parametrize("depth, blocks", [(1, 1), (16, 1), (32, 4)])
def test_it_goes_through_handovers_and_back(busy, images, depth, blocks):
    disk = busy(depth=depth, blocks=blocks)
    for number in range(10):
        done = disk.machine.upgrade([images.next, images.honest][number % 2])
        assert done.code == 0, done
        disk.wait_progress()
    done = disk.machine.rollback()
    assert done.code == 0, done
    disk.assert_unharmed()


@pytest.mark.parametrize("fault", ["error@load", "crash@loaded", "die-after-grant"])
def test_it_goes_on_where_the_incoming_worker_fails(busy, images, fault):
    disk = busy(depth=16)
    done = disk.machine.upgrade(images.faulty(fault))
    assert (done.code, done.error) == ((5, "Reverted") if fault == "die-after-grant" else (4, "Aborted")), done
    disk.assert_unharmed()
    assert disk.machine.upgrade(images.next).code == 0
    disk.assert_unharmed()


@pytest.mark.parametrize("step", ["settle", "park", "save"])
def test_it_goes_on_where_the_outgoing_worker_fails(busy, images, step):
    disk = busy(depth=16, image=images.faulty(f"error@{step}"))
    done = disk.machine.upgrade(images.next)
    assert (done.code, done.error) == (4, "Aborted"), done
    disk.assert_unharmed()


@pytest.mark.held
@pytest.mark.parametrize("step", ["settle", "park", "grant"])
def test_it_goes_on_where_batond_is_killed(busy, images, step):
    disk = busy(hold=step, depth=16)
    machine, supervisor = disk.machine, disk.machine.supervisor
    command = machine.start_upgrade(images.next)
    wait_until(supervisor.marker.exists, f"batond is held at {step}")
    batond = supervisor.batond
    processes.kill(batond)
    machine.finish(command)
    supervisor.wait_other_batond(batond)
    wait_until(lambda: machine.state == "running", lambda: f"{machine.show()}\n{supervisor.log}", pause=0.05)
    machine.wait_one_worker()
    disk.assert_unharmed()
