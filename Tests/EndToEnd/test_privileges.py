"""What each process may do (docs/privileges.md): by what the kernel says of every thread."""
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from support import processes, programs
from support.machine import Machine
from support.processes import wait_until
from support.supervisor import Supervisor

pytestmark = [pytest.mark.kvm, pytest.mark.root]

CHOWN, KILL, SETGID, SETUID, SETPCAP, IPC_LOCK, SYS_RESOURCE = 0, 5, 6, 7, 8, 14, 24
SUPERVISOR = {CHOWN, KILL, SETGID, SETUID, IPC_LOCK, SYS_RESOURCE}


def capabilities(text):
    value = int(text, 16)
    return {bit for bit in range(64) if value >> bit & 1}


def of_threads(pid):
    """{field: set of the values that the threads of a process have}, for the fields that are about privileges."""
    fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid", "Gid", "Groups", "Seccomp"]
    found = [processes.status(pid, task) for task in processes.threads(pid)]
    return {field: {status.get(field, "") for status in found} for field in fields}


def only(values):
    assert len(values) == 1, f"threads differ: {values}"
    return next(iter(values))


@pytest.fixture
def given():
    """The capabilities this machine gives root."""
    return capabilities(processes.status(os.getpid())["CapPrm"]) & capabilities(processes.status(os.getpid())["CapBnd"])


def test_every_thread_of_batond_has_exactly_the_documented_capabilities(machine, supervisor, images, given):
    assert machine.upgrade(images.next).code == 0
    assert supervisor.baton("doctor").code in (0, 1)
    batond = of_threads(supervisor.batond)
    assert len(processes.threads(supervisor.batond)) >= 3
    expected = SUPERVISOR & given
    assert capabilities(only(batond["CapPrm"])) == expected
    assert capabilities(only(batond["CapEff"])) == expected
    assert capabilities(only(batond["CapBnd"])) == expected
    assert capabilities(only(batond["CapInh"])) == set()
    assert capabilities(only(batond["CapAmb"])) == set()
    documented = (programs.CHECKOUT / "docs/privileges.md").read_text()
    assert f"{sum(1 << bit for bit in SUPERVISOR):016x}" in documented


def test_the_keeper_has_no_capability_and_a_bounding_set_for_batond(machine, supervisor, given):
    keeper = of_threads(supervisor.keeper.pid)
    for field in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert capabilities(only(keeper[field])) == set(), field
    assert capabilities(only(keeper["CapBnd"])) == (SUPERVISOR | {SETPCAP}) & given


def test_workers_have_no_capability_and_can_gain_none(machine, supervisor, images):
    """Also after a handover, and each generation under its own user."""
    users = []
    for image in (None, images.next):
        if image:
            assert machine.upgrade(image).code == 0
        worker = of_threads(machine.wait_one_worker())
        for field in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert capabilities(only(worker[field])) == set(), field
        assert only(worker["NoNewPrivs"]) == "1"
        ids = set(only(worker["Uid"]).split())
        assert len(ids) == 1 and ids == set(only(worker["Gid"]).split()), worker
        assert only(worker["Groups"]) == "", worker
        users.append(int(next(iter(ids))))
    assert users == [600001, 600000]
    assert machine.show()["worker"]["uid"] == users[-1]


def test_batond_cannot_regain_what_it_gave_up(machine, supervisor):
    """An exec would give no more than the bounding set holds, and that is what it has already."""
    batond = of_threads(supervisor.batond)
    assert capabilities(only(batond["CapBnd"])) == capabilities(only(batond["CapPrm"]))
    assert SETPCAP not in capabilities(only(batond["CapPrm"]))


def test_a_worker_holds_only_what_it_was_lent(machine):
    """Standard streams, its session, KVM's objects, and the machine's resources by name: no file, no other socket."""
    names = processes.descriptors(machine.pid)
    allowed = ("/dev/null", "/dev/kvm", "/memfd:guest-ram", "/memfd:commit-word", "/memfd:checkpoint", "anon_inode:", "socket", "/memfd:blueprint")
    strange = [name for name in names if not name.startswith(allowed) and name != str(programs.HEARTBEAT)]
    assert not strange, names
    assert names["socket"] <= 4, names  # its log twice, its session, the console


def test_the_supervisor_runs_as_an_ordinary_user(images):
    """One who may open /dev/kvm: everything works but what needs privilege, and batond says which that is."""
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("unshare and setpriv (util-linux) are needed to become an ordinary user with a /dev/kvm of its own")
    user = 64321
    above = pathlib.Path(tempfile.mkdtemp(prefix="baton-e2e-"))
    above.chmod(0o755)
    node = above / "kvm"
    number = os.stat("/dev/kvm").st_rdev
    try:
        os.mknod(node, 0o600 | 0o020000, number)
        os.chown(node, user, user)
        with open(node, "r+b", buffering=0):
            pass
    except OSError as error:
        shutil.rmtree(above)
        pytest.skip(f"a device node cannot be made or used here: {error}")
    script = above / "as-user"
    script.write_text(
        "#!/bin/sh\nset -e\n"
        f"mount --bind {node} /dev/kvm\n"
        f"exec setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all --bounding-set=-all \"$@\"\n")
    script.chmod(0o755)
    if subprocess.run(["unshare", "-m", script, "sh", "-c", "exec 3<>/dev/kvm"], capture_output=True).returncode != 0:
        shutil.rmtree(above)
        pytest.skip("a mount namespace with a /dev/kvm of the user's own cannot be made here")
    supervisor = Supervisor(images, ("--answer-seconds", "3"), prefix=("unshare", "-m", script))
    supervisor.directory.chmod(0o755)
    os.chown(supervisor.directory, user, user)
    try:
        supervisor.start()
        wait_until(lambda: "without privileges" in supervisor.log, "batond says that it has none")
        assert "VFIO" in supervisor.log and "workers run as this user" in supervisor.log
        machine = Machine(supervisor).run()
        machine.evidence.reset_counters()
        assert machine.upgrade(images.next).code == 0
        assert machine.upgrade(images.faulty("crash-in-load")).code == 4
        assert machine.rollback().code == 0
        machine.assert_runs()
        for pid in (supervisor.keeper.pid, supervisor.batond, machine.pid):
            found = of_threads(pid)
            assert set(only(found["Uid"]).split()) == {str(user)}
            assert capabilities(only(found["CapPrm"])) == set()
        assert only(of_threads(machine.pid)["NoNewPrivs"]) == "1"
        past = supervisor.batond
        processes.kill(past)
        supervisor.wait_other_batond(past)
        machine.assert_runs()
        machine.evidence.close()
    finally:
        print(supervisor.log)
        supervisor.close()
        shutil.rmtree(above)


def test_another_user_is_not_served(machine, supervisor):
    """The socket's mode keeps it out; and where that let it in, batond asks who it is."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is needed to become another user")
    command = ["setpriv", "--reuid", "64322", "--regid", "64322", "--clear-groups", programs.BATON, "list", "--json", "--socket", supervisor.socket]
    supervisor.run_directory.chmod(0o755)
    assert subprocess.run(command, capture_output=True).returncode == 7
    supervisor.socket.chmod(0o666)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3 and "NotPermitted" in done.stderr, done
    machine.assert_runs()
