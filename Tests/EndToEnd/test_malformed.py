"""Malformed input of each kind: one clear error, a supervisor that goes on, and guests that notice nothing."""
import json
import os
import socket
import time

import pytest

from support import processes, programs
from support.machine import Machine
from support.processes import wait_until
from support.varlink import INTERFACE, Client

pytestmark = pytest.mark.kvm

# Messages

NOT_VARLINK = {
    "not JSON": "hello",
    "no text": "",
    "a number": "7",
    "a list": "[]",
    "nothing named": "{}",
    "a method that is no text": '{"method": 7}',
    "a method without an interface": '{"method": "List"}',
    "an unknown member": '{"method": "io.baton.Supervisor.List", "priority": 1}',
    "a member twice": '{"method": "io.baton.Supervisor.List", "method": "io.baton.Supervisor.List"}',
    "parameters in a list": '{"method": "io.baton.Supervisor.List", "parameters": []}',
    "a flag that is no flag": '{"method": "io.baton.Supervisor.Events", "more": "yes"}',
    "cut off": '{"method": "io.baton.Supervisor.List"',
    "something after it": '{"method": "io.baton.Supervisor.List"} 1',
    "a lone surrogate": '{"method": "\\ud800"}',
    "bytes that are no UTF-8": b'{"method": "\xff\xfe"}',
    "nested too deep": '{"method": "io.baton.Supervisor.Run", "parameters": {"spec": ' + "[" * 100 + "]" * 100 + "}}",
    "nested much too deep": "[" * 500_000,
    "an integer too large": '{"method": "io.baton.Supervisor.History", "parameters": {"machine": "web1", "limit": 99999999999999999999}}',
    "longer than allowed": '{"method": "' + "x" * (1 << 20) + '"}',
}


@pytest.mark.parametrize("kind", NOT_VARLINK)
def test_a_message_that_is_not_varlink_is_answered_and_the_connection_closed(machine, supervisor, kind):
    text = NOT_VARLINK[kind]
    batond = supervisor.batond
    with Client(supervisor.socket) as client:
        try:
            client.send_bytes((text if isinstance(text, bytes) else text.encode()) + b"\0")
        except (BrokenPipeError, ConnectionResetError):
            pass
        reply = client.receive()
        assert reply is None or reply["error"] == f"{INTERFACE}.Malformed", reply
        if kind not in ("longer than allowed", "nested much too deep"):  # what was not read may take the answer with it
            assert reply is not None and reply["parameters"]["reason"], reply
        assert client.receive() is None
    assert supervisor.batond == batond
    machine.assert_runs()


WRONG_CALLS = {
    "org.varlink.service.MethodNotFound": [("Nothing", {}), ("org.varlink.service.Nothing", {})],
    "org.varlink.service.InterfaceNotFound": [("org.example.Nothing", {})],
    "org.varlink.service.InvalidParameter": [
        ("Show", {}), ("Show", {"machine": 7}), ("Show", {"machine": None}), ("Show", {"machine": ["web1"]}), ("Show", {"machine": "web1", "x": 1}),
        ("Upgrade", {"machine": "web1"}), ("Upgrade", {"machine": "web1", "image": {}}), ("History", {"machine": "web1", "limit": "all"}),
        ("History", {"machine": "web1", "limit": 1.5}), ("Run", {}), ("Run", {"spec": 1}), ("Run", {"spec": {"name": "x"}}),
        ("Stop", {"machine": "web1", "force": 1}),
    ],
    "org.varlink.service.ExpectedMore": [("Events", {})],
    "io.baton.Supervisor.MachineNotFound": [
        (method, {"machine": "nobody"}) for method in ("Show", "Rollback", "Abort", "History", "Pause", "Resume", "Stop")],
}


@pytest.mark.parametrize("error", WRONG_CALLS)
def test_a_call_that_is_wrong_is_a_typed_error_and_the_connection_goes_on(machine, supervisor, error):
    with Client(supervisor.socket) as client:
        for method, parameters in WRONG_CALLS[error]:
            found, _ = client.error(method, **parameters)
            assert found == error, (method, parameters)
        assert client.call("List")["machines"][0]["name"] == "web1"
    machine.assert_runs()


def test_a_specification_that_asks_for_the_impossible_names_the_key(supervisor, images):
    def specification(**changes):
        spec = {
            "name": "web1", "vcpus": 1, "memory": {"sizeBytes": 32 << 20, "pages": "4KiB", "prefault": False},
            "boot": {"kernel": str(programs.HEARTBEAT)}, "image": str(images.honest), "onCrash": "stop",
            "upgrade": {"blackoutBudgetNanoseconds": 10**9, "onlyUpgradable": False, "soak": {"durationMilliseconds": 0, "onFailure": "revert"}},
        }
        for path, value in changes.items():
            place = spec
            *above, last = path.split("__")
            for key in above:
                place = place[key]
            place[last] = value
        return spec

    impossible = {
        "name": ["", "../../etc", "a/b", "x" * 64, "-x", "a\0b", "ä"], "vcpus": [0, -1, 255, 1 << 40],
        "memory.sizeBytes": [0, 1, 4097, -4096, 1 << 62], "boot.kernel": ["", "relative", "/nonexistent", "/dev/null", "/etc"],
        "upgrade.blackoutBudgetNanoseconds": [0, -1, 1 << 62], "upgrade.soak.durationMilliseconds": [-1, 1 << 60],
    }
    with Client(supervisor.socket) as client:
        for key, values in impossible.items():
            for value in values:
                error, parameters = client.error("Run", spec=specification(**{key.replace(".", "__"): value}))
                assert error in (f"{INTERFACE}.InvalidSpec", "org.varlink.service.InvalidParameter"), (key, value, error, parameters)
                named = parameters.get("key") or parameters["parameter"]
                assert key.split(".")[0] in named, (key, value, parameters)
        assert client.call("List")["machines"] == []
    assert len(supervisor.family()) == 1


def test_a_client_that_never_reads_holds_up_nobody(machine, supervisor, images):
    """It follows events and an upgrade and takes no byte: it is given up, the upgrade goes on."""
    before = processes.descriptors(supervisor.batond)
    with Client(supervisor.socket, receive_buffer=4096) as deaf, Client(supervisor.socket, receive_buffer=4096) as deafer:
        for _ in range(2000):
            try:
                deaf.socket.settimeout(0.2)
                deaf.send("List")
            except (socket.timeout, BrokenPipeError, ConnectionResetError):
                break  # full: the other side waits for us
        deafer.send("Events", more=True, follow=True)
        for image in (images.next, images.honest, images.next):
            began = time.monotonic()
            assert machine.upgrade(image).code == 0
            assert time.monotonic() - began < 15
        machine.assert_runs()
    wait_until(lambda: processes.descriptors(supervisor.batond)["socket"] <= before["socket"] + 2, "the connections are closed", seconds=40)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(machine, supervisor, images):
    before = machine.descriptors()
    for _ in range(30):
        with Client(supervisor.socket) as client:
            client.send_bytes('{"method": "io.baton.Superv')
    with Client(supervisor.socket) as client:
        client.send("Upgrade", more=True, machine="web1", image=str(images.next))
        client.receive()
    wait_until(lambda: machine.generation == 2, "the upgrade goes on without its client")
    machine.assert_runs()
    assert machine.upgrade(images.honest).code == 0
    after = machine.descriptors()
    assert after["batond"]["socket"] <= before["batond"]["socket"], (before["batond"], after["batond"])


def test_more_clients_than_there_is_room_for_are_turned_away_one_by_one(machine, supervisor):
    clients = [Client(supervisor.socket) for _ in range(64)]
    try:
        clients[0].call("List")
        wait_until(lambda: processes.descriptors(supervisor.batond)["socket"] >= 64, "all are taken in")
        with Client(supervisor.socket) as late:
            reply = late.receive()
            assert reply is None or reply["error"] == f"{INTERFACE}.Unavailable", reply
            assert late.receive() is None if reply else True
        machine.evidence.wait_progress()
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: supervisor.baton("list").code == 0, "there is room again")
    machine.assert_runs()


def test_several_calls_in_one_piece_and_one_call_in_many_are_understood(machine, supervisor):
    with Client(supervisor.socket) as client:
        client.send_bytes(b'{"method":"io.baton.Supervisor.List"}\0' * 3)
        for _ in range(3):
            assert client.receive()["parameters"]["machines"]
        for byte in b'{"method":"io.baton.Supervisor.List"}\0':
            client.send_bytes(bytes([byte]))
        assert client.receive()["parameters"]["machines"]


# Machine files and what they name

FILES = {
    "nothing": ("", "name"),
    "no YAML": ("name: [", "1:"),
    "binary": (b"\x7fELF\0\1\2\xff", ""),
    "an unknown key": ("name: a\nvcpus: 1\nmemory: {size: 32MiB}\nboot: {kernel: k}\ncolour: red\n", "5:1: unknown key \"colour\""),
    "a key twice": ("name: a\nname: b\n", "2:1"),
    "a wrong type": ("name: a\nvcpus: many\nmemory: {size: 32MiB}\nboot: {kernel: k}\n", "2:8: vcpus"),
    "a wrong unit": ("name: a\nvcpus: 1\nmemory: {size: 32MB}\nboot: {kernel: k}\n", "memory.size"),
    "too many vCPUs": ("name: a\nvcpus: 1000\nmemory: {size: 32MiB}\nboot: {kernel: k}\n", "vcpus"),
    "a bad name": ("name: ../a\nvcpus: 1\nmemory: {size: 32MiB}\nboot: {kernel: k}\n", "1:7: name"),
    "an alias": ("name: &a b\nvcpus: 1\n", "1:"),
    "too long": ("#" + "x" * (2 << 20), ""),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_machine_file_with_a_mistake_is_one_error_with_its_place(supervisor, kind):
    text, words = FILES[kind]
    path = supervisor.directory / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = supervisor.baton_text("run", path)
    assert done.code in (1, 3), done
    assert words in done.err and "bad.yaml" in done.err, done
    assert len(done.err.splitlines()) <= 3, done
    assert supervisor.baton("list").json == []


def test_a_kernel_that_is_none_is_refused_with_its_reason(supervisor, tmp_path):
    whole = programs.HEARTBEAT.read_bytes()
    os.chmod(tmp_path, 0o755)
    bad = {"empty": b"", "text": b"not a kernel\n" * 100, "cut": whole[:200], "half": whole[: len(whole) // 2]}
    for name, content in bad.items():
        kernel = tmp_path / name
        kernel.write_bytes(content)
        done = supervisor.baton("run", Machine(supervisor, kernel=kernel).write())
        assert done.code in (1, 3) and done.reason, (name, done)
        assert len(done.err.splitlines()) == 1, done
        wait_until(lambda: len(supervisor.family()) == 1, lambda: f"only batond is left: {supervisor.family()}")
    os.mkfifo(tmp_path / "fifo")
    done = supervisor.baton("run", Machine(supervisor, kernel=tmp_path / "fifo").write())
    assert (done.code, done.error) == (3, "InvalidSpec"), done
    assert supervisor.baton("list").json == []


def test_flipped_bits_in_a_kernels_headers_never_harm_the_supervisor(supervisor, tmp_path):
    """Whatever comes of it, an error or a guest that does not get far: batond lives, and the machine can be ended."""
    whole = bytearray(programs.HEARTBEAT.read_bytes())
    os.chmod(tmp_path, 0o755)
    batond = supervisor.batond
    step = 1 if programs.LONG else 9
    for offset in range(0, 0xB0, step):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << (offset % 8)
        kernel = tmp_path / "kernel"
        kernel.write_bytes(damaged)
        done = supervisor.baton("run", Machine(supervisor, kernel=kernel).write())
        if done.code == 0:
            supervisor.baton("stop", "web1", "--force")
        else:
            assert done.code in (1, 3) and done.reason, (offset, done)
    assert supervisor.batond == batond
    wait_until(lambda: len(supervisor.family()) == 1, lambda: f"only batond is left: {supervisor.family()}")


# What batond is started with


def test_options_and_configuration_with_mistakes_are_one_error(images, tmp_path):
    import subprocess

    config = tmp_path / "batond.json"
    for text, words in [("{", "byte 1"), ("[]", "not an object"), ('{"soket": "x"}', "soket"), ('{"socket": 7}', "socket"),
                        ('{"workerUserBase": -1}', "workerUserBase"), ('{"imageDirectories": [1]}', "imageDirectories")]:
        config.write_text(text)
        done = subprocess.run([programs.BATOND, "--custody", "3", "--config", config, "--run-directory", tmp_path / "run"], capture_output=True,
                              text=True, timeout=30)
        assert done.returncode != 0 and words in done.stderr, (text, done)
    done = subprocess.run([programs.BATOND, "--nonsense"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 64 and "nonsense" in done.stderr, done
    done = subprocess.run([programs.BATOND], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and "baton-keep" in done.stderr, done


def test_a_journal_that_was_damaged_costs_its_machine_no_guest(machine, supervisor):
    """Its worker runs on, whether or not the next batond can take it over; other machines are not touched."""
    other = Machine(supervisor, name="other").run()
    journal = supervisor.run_directory / "machines/web1/journal"
    past = supervisor.batond
    processes.kill(past, 19)
    journal.write_bytes(os.urandom(500))
    processes.kill(past)
    supervisor.wait_other_batond(past)
    machine.evidence.wait_progress()
    assert machine.evidence.damage == 0
    other.assert_runs()
    events = supervisor.baton("events").lines
    assert [event["machine"] for event in events if event["kind"] == "warning"] == ["web1"], events
    assert "web1 cannot be taken over" in supervisor.log
    other.evidence.close()


def test_a_journal_whose_last_line_was_cut_off_is_read_up_to_there(machine, supervisor, images):
    assert machine.upgrade(images.next).code == 0
    journal = supervisor.run_directory / "machines/web1/journal"
    past = supervisor.batond
    processes.kill(past, 19)
    with open(journal, "ab") as file:
        file.write(b'deadbeef {"kind":"handover_be')
    processes.kill(past)
    supervisor.wait_other_batond(past)
    machine.assert_runs()
    assert machine.generation == 2
    assert machine.rollback().code == 0


def test_json_on_standard_output_is_nothing_but_json(machine, supervisor, images):
    for command in (["list"], ["show", "web1"], ["history", "web1"], ["doctor"], ["image", "describe", images.next], ["run", machine.file, "--check"]):
        done = supervisor.baton(*command)
        assert done.code in (0, 1), done
        json.loads(done.out)
