"""What is behind a machine's devices: opened once, locked, the same open files in every worker, given back at the end.

The guest here ignores its devices; that they work is tested with Linux guests, in the lab, and of disks by test_busy_disk.py.
"""
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading

import pytest

from support import locks, processes
from support.machine import Machine
from support.processes import wait_until

pytestmark = pytest.mark.kvm


@pytest.fixture
def disked(supervisors):
    """Makes supervisors that allow disks in their own directory, and machines with devices."""
    supervisor = supervisors("--answer-seconds", "3", "--prepare-seconds", "10", disks=True)
    machines = []

    def make(*devices, name="web1", **options):
        machine = Machine(supervisor, name=name, **options)
        machine.spec["devices"] = list(devices)
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        if machine.evidence:
            machine.evidence.close()


def disk_file(machine_or_supervisor, name="web1.raw", size=1 << 20):
    directory = getattr(machine_or_supervisor, "supervisor", machine_or_supervisor).disks
    path = directory / name
    path.write_bytes(bytes(size))
    return path


def committed(done):
    assert done.code == 0, done
    return done.lines[-1]["handover"]


# Disks


def test_a_disk_stays_locked_and_the_same_open_file_through_everything(disked, images):
    machine = disked({"rng": {}})
    path = disk_file(machine)
    machine.spec["devices"].append({"disk": {"path": str(path), "serial": "web1-root"}})
    assert not locks.is_locked(path)
    machine.run()
    supervisor = machine.supervisor

    def assert_same(what):
        assert locks.is_locked(path, for_reading=True), what
        assert locks.descriptors_of(supervisor.keeper.pid, path) == kept, what
        pid = machine.wait_one_worker()
        ours, theirs = (supervisor.keeper.pid, kept[0]), [(pid, number) for number in locks.descriptors_of(pid, path)]
        assert theirs, f"{what}: the worker has no descriptor of its disk"
        for one in theirs:
            same = locks.same_open_file(ours, one)
            assert same is not False, f"{what}: the worker has opened the disk anew"
            if same is None:
                print("kcmp(2) does not work here: only the lock was compared")

    kept = locks.descriptors_of(supervisor.keeper.pid, path)
    assert len(kept) == 1
    assert_same("after the start")
    committed(machine.upgrade(images.next))
    assert_same("after an upgrade")
    committed(machine.rollback())
    assert_same("after a rollback")
    past = supervisor.batond
    processes.kill(past)
    assert locks.is_locked(path)
    supervisor.wait_other_batond(past)
    assert_same("after the death of batond")
    done = machine.upgrade(images.faulty("crash@load"))
    assert done.error == "Aborted", done
    assert_same("after an aborted upgrade")
    committed(machine.upgrade(images.next))
    assert_same("after another upgrade")
    machine.assert_runs()
    assert supervisor.baton("stop", "web1", "--force").code == 0
    wait_until(lambda: not locks.is_locked(path), "the lock ends with the machine")
    assert not locks.descriptors_of(supervisor.keeper.pid, path)


def test_a_guest_that_resets_itself_keeps_its_disk(disked):
    machine = disked(cmdline="reset-after-s=2")
    path = disk_file(machine)
    machine.spec["devices"] = [{"disk": {"path": str(path)}}]
    machine.run()
    supervisor = machine.supervisor
    kept = locks.descriptors_of(supervisor.keeper.pid, path)
    wait_until(lambda: any(event["kind"] == "reset" for event in machine.events()), "the guest resets itself", pause=0.1)
    assert locks.descriptors_of(supervisor.keeper.pid, path) == kept and locks.is_locked(path)


def test_a_disk_in_use_is_refused_and_its_user_is_named(disked):
    first = disked()
    path = disk_file(first)
    first.spec["devices"] = [{"disk": {"path": str(path)}}]
    first.run()
    second = disked({"disk": {"path": str(path)}}, name="web2")
    done = first.supervisor.baton("run", second.write())
    assert (done.code, done.error) == (3, "Refused"), done
    assert done.parameters["machine"] == "web2" and "machine web1 has it open for writing" in done.reason, done
    text = first.supervisor.baton_text("run", second.file)
    assert "disk " in text.err and "→ stop that one, or use another disk" in text.err, text
    second.spec["devices"][0]["disk"]["read-only"] = True
    done = first.supervisor.baton("run", second.write())
    assert done.error == "Refused", done
    # Twice in one machine is no better, and a refused machine leaves nothing locked.
    other = disk_file(first, "other.raw")
    twice = disked({"disk": {"path": str(other)}}, {"disk": {"path": str(other), "read-only": True}}, name="web3")
    done = first.supervisor.baton("run", twice.write())
    assert done.error == "Refused" and "machine web3" in done.reason, done
    assert not locks.is_locked(other)
    first.assert_runs()


def test_read_only_disks_are_shared(disked):
    first = disked()
    path = disk_file(first)
    first.spec["devices"] = [{"disk": {"path": str(path), "read-only": True}}]
    first.run()
    disked({"disk": {"path": str(path), "read-only": True}}, name="web2").run()
    assert locks.is_locked(path) and not locks.is_locked(path, for_reading=True)
    third = disked({"disk": {"path": str(path)}}, name="web3")
    done = first.supervisor.baton("run", third.write())
    assert done.error == "Refused" and "open for reading" in done.reason, done


def test_a_lock_of_another_program_is_respected(disked):
    machine = disked()
    path = disk_file(machine)
    machine.spec["devices"] = [{"disk": {"path": str(path)}}]
    import fcntl

    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # a POSIX lock: it has a process
        done = machine.supervisor.baton("run", machine.write())
        assert done.error == "Refused" and f"process {os.getpid()}" in done.reason, done
    machine.run()


def test_disks_elsewhere_and_things_that_are_no_disks_are_refused(disked, tmp_path):
    machine = disked()
    directory = machine.supervisor.disks
    elsewhere = tmp_path / "disk.raw"
    elsewhere.write_bytes(bytes(4096))
    (directory / "link.raw").symlink_to(elsewhere)
    (directory / "odd.raw").write_bytes(bytes(1000))
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe")
    for path, why in [
        (elsewhere, "not below an allowed directory"), (directory / ".." / "x", "not below an allowed directory"),
        (directory / "link.raw", "symbolic link"), (directory / "odd.raw", "512-byte sectors"), (directory / "folder", "neither a file nor"),
        (directory / "pipe", "neither a file nor"), (directory / "absent.raw", "No such file"), ("/dev/null", "not below an allowed directory"),
    ]:
        machine.spec["devices"] = [{"disk": {"path": str(path)}}]
        machine.write()
        # The command line makes paths plain; a client of the interface need not.
        done = machine.supervisor.baton("run", machine.file)
        assert (done.code, done.error) == (3, "InvalidSpec"), (path, done)
        assert done.parameters["key"] == "devices[0].disk.path" and (why in done.reason or ".." in str(path)), (path, done)
    assert machine.supervisor.baton("list").json == []


# Networks


def test_a_tap_that_is_not_there_is_refused_with_the_command_that_makes_it(disked):
    machine = disked({"net": {"tap": "baton-absent", "queues": 2}})
    done = machine.supervisor.baton("run", machine.write())
    assert (done.code, done.error) == (3, "InvalidSpec"), done
    assert done.parameters["key"] == "devices[0].net.tap", done
    assert "ip tuntap add dev baton-absent mode tap vnet_hdr multi_queue" in done.reason, done
    checks = {check["name"]: check for check in machine.supervisor.baton("doctor").json}
    assert "/dev/net/tun" in checks and "disk directories" in checks, checks


# Streams


class Reader(threading.Thread):
    """Reads everything that comes over a socket until it ends."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.bytes = b""
        self.ended = False
        self.start()

    def run(self):
        try:
            while chunk := self.socket.recv(65536):
                self.bytes += chunk
        except OSError as error:
            print(f"reader: {error}")
        self.ended = True

    def heartbeats(self):
        """The guest's lines it got whole: the first and the last may have been cut by connecting and by the end."""
        return [line for line in self.bytes.decode(errors="replace").splitlines()[1:-1] if line.startswith("heartbeat t=")]


def test_a_client_of_the_console_socket_misses_no_byte_of_handovers_and_of_restarts(disked, images):
    machine = disked()
    path = machine.supervisor.directory / "web1.console"
    machine.spec["console"] = {"socket": str(path)}
    machine.run()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    first, beside = Reader(path), Reader(path)
    for _ in range(2):
        committed(machine.upgrade(images.next))
        committed(machine.rollback())
    wait_until(lambda: len(first.heartbeats()) > 2, "the guest reports to the first client")
    assert not first.ended and not beside.ended
    past = machine.supervisor.batond
    processes.kill(past, signal.SIGKILL)
    # The socket is in custody: a client that connects now waits.
    wait_until(lambda: first.ended, "the client sees the end of batond")
    second = Reader(path)
    machine.supervisor.wait_other_batond(past)
    committed(machine.upgrade(images.next))
    seen = len(second.heartbeats())
    wait_until(lambda: len(second.heartbeats()) > seen + 2, "the guest goes on to report")
    machine.assert_runs()
    assert machine.supervisor.baton("stop", "web1", "--force").code == 0
    wait_until(lambda: second.ended, "clients see the machine's end")
    assert not path.exists()
    log = (machine.supervisor.run_directory / "machines/web1/console.log").read_bytes()
    # What was passed on as batond died may come twice, in the log and with clients; the guest's lines tell one from another.
    assert first.bytes in log and beside.bytes in log, (first.bytes[-300:], log[-600:])
    lines = [line for line in log.decode().splitlines() if line.startswith("heartbeat t=")]
    for reader in (first, second):
        whole = reader.heartbeats()
        begin = lines.index(whole[0])
        assert whole == lines[begin:begin + len(whole)], "a line is missing"
    assert lines.index(first.bytes.decode().splitlines()[-2]) >= lines.index(second.bytes.decode().splitlines()[1]) - 1


def test_ports_have_sockets_that_live_as_long_as_the_machine(disked, images):
    machine = disked()
    agent, log = (machine.supervisor.directory / name for name in ("web1.agent", "web1.log"))
    machine.spec["devices"] = [
        {"rng": {}}, {"console": {"ports": [{"name": "org.example.agent", "socket": str(agent)}, {"name": "log", "socket": str(log)}]}}]
    machine.run()
    for path in (agent, log):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    client = Reader(agent)
    client.socket.sendall(b"x" * 100_000)  # waits for a guest that reads
    committed(machine.upgrade(images.next))
    committed(machine.rollback())
    assert not client.ended
    # A second machine does not take the first one's socket.
    other = disked({"console": {"ports": [{"name": "a", "socket": str(agent)}]}}, name="web2")
    done = machine.supervisor.baton("run", other.write())
    assert (done.error, done.parameters.get("key")) == ("InvalidSpec", "devices[0].console.ports[0].socket"), done
    assert agent.exists()
    past = machine.supervisor.batond
    processes.kill(past)
    wait_until(lambda: client.ended, "the client sees the end of batond")
    again = Reader(agent)
    machine.supervisor.wait_other_batond(past)
    committed(machine.upgrade(images.next))
    assert not again.ended
    machine.assert_runs()
    assert machine.supervisor.baton("stop", "web1", "--force").code == 0
    wait_until(lambda: again.ended, "the client sees the machine's end")
    assert not agent.exists() and not log.exists()


# What is told of it


def test_devices_and_their_hold_are_shown(disked, images):
    machine = disked()
    path = disk_file(machine)
    machine.spec["devices"] = [
        {"disk": {"path": str(path), "serial": "web1-root", "queues": 1}}, {"rng": {}},
        {"console": {"ports": [{"name": "a", "socket": str(machine.supervisor.directory / "a")}]}}]
    machine.run()
    devices = machine.show()["devices"]
    assert [device["address"] for device in devices] == ["00:01.0", "00:02.0", "00:03.0"], devices
    text = machine.supervisor.baton_text("show", "web1").out
    assert f"00:01.0  disk     {path}, serial web1-root, 1 queue" in text, text
    record = committed(machine.upgrade(images.next))
    assert record["ioHoldNanoseconds"] > record["blackoutNanoseconds"], record
    assert machine.history()[0]["ioHoldNanoseconds"] == record["ioHoldNanoseconds"]
    done = machine.supervisor.baton_text("upgrade", "web1", "--image", images.honest)
    assert "I/O hold (guest running)" in done.out and "I/O hold " in done.out.splitlines()[-1], done


def test_nothing_grows_with_handovers_of_a_machine_with_devices(disked, images):
    machine = disked()
    path = disk_file(machine)
    machine.spec["devices"] = [
        {"disk": {"path": str(path)}}, {"rng": {}},
        {"console": {"ports": [{"name": f"p{n}", "socket": str(machine.supervisor.directory / f"p{n}")} for n in range(8)]}}]
    machine.run()
    committed(machine.upgrade(images.next))
    committed(machine.rollback())
    before = machine.descriptors()
    for _ in range(3):
        committed(machine.upgrade(images.next))
        committed(machine.rollback())
    assert machine.descriptors() == before


def test_a_machine_with_more_descriptors_than_a_message_carries_is_handed_over(disked, images):
    """30 consoles of 8 ports: 240 streams and the rest of the machine."""
    machine = disked(memory="64MiB")
    machine.spec["devices"] = [
        {"console": {"ports": [{"name": f"p{n}", "socket": str(machine.supervisor.directory / f"{d}.{n}")} for n in range(8)]}}
        for d in range(30)]
    machine.run()
    committed(machine.upgrade(images.next))
    machine.assert_runs()


# Taps


class Tap:
    """A persistent tap, made as docs/machine-file.md says."""

    def __init__(self, name, *words):
        self.name = name
        made = subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr", *words], capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"TAPS ARE NOT TESTED HERE, only in the lab: ip tuntap add: {made.stderr.strip()}")

    def close(self):
        subprocess.run(["ip", "link", "del", self.name], capture_output=True)


@pytest.fixture
def taps():
    if not shutil.which("ip") or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("TAPS ARE NOT TESTED HERE, only in the lab: no ip(8), or /dev/net/tun cannot be opened")
    made = []

    def make(name, *words):
        made.append(Tap(name, *words))
        return made[-1].name

    yield make
    for tap in made:
        tap.close()


def test_a_tap_stays_attached_through_handovers_and_is_free_after_them(disked, taps, images):
    name = taps(f"bt{os.getpid()}", "multi_queue")
    machine = disked({"net": {"tap": name, "queues": 2, "mtu": 1400}})
    machine.run()
    assert machine.show()["devices"][0]["spec"]["net"]["mac"]
    attached = processes.descriptors(machine.supervisor.keeper.pid)["/dev/net/tun"]
    assert attached == 2
    second = disked({"net": {"tap": name}}, name="web2")
    done = machine.supervisor.baton("run", second.write())
    assert done.error == "InvalidSpec" and "no tap that takes a single queue" in done.reason and "ip tuntap del" in done.reason, done
    committed(machine.upgrade(images.next))
    past = machine.supervisor.batond
    processes.kill(past)
    machine.supervisor.wait_other_batond(past)
    committed(machine.rollback())
    assert processes.descriptors(machine.supervisor.keeper.pid)["/dev/net/tun"] == attached
    assert processes.descriptors(machine.wait_one_worker())["/dev/net/tun"] == attached
    machine.assert_runs()
    assert machine.supervisor.baton("stop", "web1", "--force").code == 0
    wait_until(lambda: not processes.descriptors(machine.supervisor.keeper.pid)["/dev/net/tun"], "the tap is given back")


def test_a_tap_in_use_or_made_otherwise_is_refused_with_the_remedy(disked, taps):
    name = taps(f"bt{os.getpid()}")
    first = disked({"net": {"tap": name}})
    first.run()
    supervisor = first.supervisor
    done = supervisor.baton("run", disked({"net": {"tap": name}}, name="web2").write())
    assert (done.code, done.error) == (3, "Refused") and f"somebody has the tap {name} already" in done.reason, done
    done = supervisor.baton("run", disked({"net": {"tap": name, "queues": 4}}, name="web2").write())
    assert done.error == "InvalidSpec" and f"ip tuntap add dev {name} mode tap vnet_hdr multi_queue" in done.reason, done
    # What is no tap at all.
    done = supervisor.baton("run", disked({"net": {"tap": "lo"}}, name="web2").write())
    assert done.error == "InvalidSpec" and "lo is no tap" in done.reason, done
    first.assert_runs()
