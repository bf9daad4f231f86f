"""A worker whose supervisor speaks nonsense: what is malformed changes nothing, nothing leaks, and it ends when its session does.

The test is the supervisor here: it starts a real worker with one end of a socket pair (Sources/Handover has the messages).
"""
import os
import random
import socket
import struct
import subprocess

import pytest

from support import processes, programs

pytestmark = pytest.mark.kvm

MAGIC, PROTOCOL, GENERATION = 0x4E544142, 1, 5
LEND, LOCATE, RETIRE = 1, 14, 17
HELLO, LOCATION, REFUSED = 101, 112, 114


class Session:
    def __init__(self):
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.sequence = 0
        number = far.fileno()
        self.worker = subprocess.Popen(
            [programs.IMAGES / "baton-vmm", "--session", str(number), "--generation", str(GENERATION)], pass_fds=[number],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        far.close()
        kind, generation, sequence, _ = self.receive()
        assert (kind, generation, sequence) == (HELLO, GENERATION, 0)

    def close(self):
        self.socket.close()
        if self.worker.poll() is None:
            self.worker.kill()
        self.worker.wait()

    def message(self, kind, payload=b"", count=0, **changes):
        self.sequence += 1
        fields = dict(magic=MAGIC, protocol=PROTOCOL, kind=kind, generation=GENERATION, sequence=self.sequence, count=count, zero=0)
        fields.update(changes)
        return struct.pack("<IHHIIHH", *fields.values()) + payload

    def send(self, message, descriptors=()):
        socket.send_fds(self.socket, [message], descriptors)

    def receive(self):
        data = self.socket.recv(1 << 18)
        assert data, "the worker closed its session"
        magic, protocol, kind, generation, sequence, count, zero = struct.unpack("<IHHIIHH", data[:20])
        assert (magic, protocol, zero) == (MAGIC, PROTOCOL, 0)
        return kind, generation, sequence, data[20:]

    def asks(self, kind, payload=b"", descriptors=()):
        """Sends an order and returns kind and payload of its answer; answers to earlier ones are passed over."""
        self.send(self.message(kind, payload, len(descriptors)), descriptors)
        while True:
            answer, generation, sequence, rest = self.receive()
            assert generation == GENERATION
            if sequence == self.sequence:
                return answer, rest

    def assert_unharmed(self, held):
        answer, rest = self.asks(LOCATE)
        assert answer == LOCATION
        assert struct.unpack("<H", rest)[0] == self.waiting
        assert processes.descriptors(self.worker.pid) == held


@pytest.fixture
def session():
    session = Session()
    answer, rest = session.asks(LOCATE)
    assert answer == LOCATION
    session.waiting = struct.unpack("<H", rest)[0]
    yield session
    session.close()


def entry(name, kind=1, slot=0):
    return struct.pack("<I", len(name)) + name.encode() + struct.pack("<HIB", kind, slot, 1)


def lending(*entries, total=None):
    return struct.pack("<I", len(entries)) + b"".join(entries) + struct.pack("<I", len(entries) if total is None else total)


def malformed(session):
    """Everything that is no order: (what, message, how many descriptors travel with it)."""
    order = session.message
    yield "noise", os.urandom(300), 0
    yield "half an envelope", order(LOCATE)[:11], 0
    yield "another magic number", order(LOCATE, magic=1), 0
    yield "another protocol", order(LOCATE, protocol=2), 0
    yield "an unknown kind", order(4711), 0
    yield "a report", order(LOCATION, b"\0\0"), 0
    yield "something in the reserved field", order(LOCATE, zero=1), 0
    yield "more than its payload", order(LOCATE, b"\0"), 0
    yield "less than its payload", order(LEND, lending(entry("ram"))[:-1], 1), 1
    yield "a count beyond its payload", order(LEND, struct.pack("<I", 200) + entry("ram"), 1), 1
    yield "a huge count", order(LEND, struct.pack("<I", 0xFFFFFFFF)), 0
    yield "a name that is no text", order(LEND, lending(struct.pack("<I", 2) + b"\xff\xfe" + struct.pack("<HIB", 1, 0, 1)), 1), 1
    yield "an unknown kind of thing", order(LEND, lending(entry("ram", kind=99)), 1), 1
    yield "surplus descriptors", order(LOCATE), 3
    yield "surplus descriptors, announced", order(LOCATE, count=3), 3
    yield "one descriptor too few", order(LEND, lending(entry("a"), entry("b")), 2), 1
    yield "one descriptor too many", order(LEND, lending(entry("a")), 1), 2
    yield "no descriptor at all", order(LEND, lending(entry("a")), 1), 0
    yield "longer than allowed", order(LEND, bytes(200_000)), 0


def test_what_is_no_order_changes_nothing(session):
    held = processes.descriptors(session.worker.pid)
    null = os.open("/dev/null", os.O_RDWR)
    try:
        for what, message, count in malformed(session):
            session.send(message, [null] * count)
            session.assert_unharmed(held)
    except AssertionError as error:
        raise AssertionError(f"after {what}: {error}") from error
    finally:
        os.close(null)


def test_orders_cut_and_flipped_anywhere_change_nothing(session):
    held = processes.descriptors(session.worker.pid)
    whole = session.message(LEND, lending(entry("ram"), entry("kvm", kind=2)), 2)
    choices = random.Random(1)
    for length in range(1, len(whole)):
        session.send(whole[:length])
    session.assert_unharmed(held)
    for offset in range(len(whole)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << choices.randrange(8)
        session.send(bytes(damaged))
        if offset % 20 == 0:
            session.assert_unharmed(held)
    session.assert_unharmed(held)


def test_an_order_for_another_generation_or_out_of_place_is_refused(session):
    held = processes.descriptors(session.worker.pid)
    for generation in (0, 4, 6, 0xFFFFFFFF):
        session.send(session.message(LOCATE, generation=generation))
        kind, _, sequence, _ = session.receive()
        assert (kind, sequence) == (REFUSED, session.sequence)
    out_of_place = {"prepare": (4, struct.pack("<I", 3) + b"abc"), "settle": (5, bytes(8)), "save": (6, bytes(8)), "load": (7, bytes(12)), "grant": (8, b""),
                    "resume": (9, b""), "pause": (11, b""), "unpause": (12, b""), "power off": (15, b""), "fingerprint": (16, b""),
                    "export": (3, struct.pack("<I", 0))}
    for name, (kind, payload) in out_of_place.items():
        answer, rest = session.asks(kind, payload)
        assert answer == REFUSED, name
        assert len(rest) > 4, name
    session.assert_unharmed(held)


def test_an_order_said_twice_is_answered_twice_and_done_once(session):
    null = os.open("/dev/null", os.O_RDWR)
    message = session.message(LEND, lending(entry("console", kind=5)), 1)
    session.send(message, [null])
    first = session.receive()
    held = processes.descriptors(session.worker.pid)
    session.send(message, [null])
    os.close(null)
    assert session.receive() == first
    assert processes.descriptors(session.worker.pid) == held


@pytest.mark.parametrize("way", ["retired", "forgotten"])
def test_a_worker_without_a_guest_ends_with_its_session(session, way):
    if way == "retired":
        session.send(session.message(RETIRE))
    else:
        session.socket.close()
    assert session.worker.wait(timeout=10) == 0


def test_a_worker_started_by_hand_says_how_it_is_meant():
    image = programs.IMAGES / "baton-vmm"
    for arguments in ([], ["--generation"], ["--generation", "x"], ["--session", "-1", "--generation", "1"], ["--nonsense"]):
        done = subprocess.run([image, *arguments], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
        assert done.returncode == 64 and "--help" in done.stderr, (arguments, done)
    assert "usage" in subprocess.run([image, "--help"], capture_output=True, text=True, timeout=10).stdout
