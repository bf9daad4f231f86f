"""A byte stream of a guest, such as its serial console or a port: everything read so far, by lines."""
import re
import socket
import threading
import time

from support.processes import Expired

MASK = (1 << 64) - 1


class Console:
    """Connects to a stream socket and reads it for as long as it is there. One that is closed is connected to again: that is what a
    client of a supervisor that was restarted does, and it is counted."""

    def __init__(self, path, seconds=60):
        self.path = str(path)
        self.lines, self.times = [], []
        self.connections = 0
        self._rest = b""
        self._change = threading.Condition()
        self._closed = False
        self._socket = None
        self._connect(seconds)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _connect(self, seconds):
        deadline = time.monotonic() + seconds
        while not self._closed:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.connect(self.path)
                self._socket, self.connections = made, self.connections + 1
                return True
            except OSError:
                made.close()
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
        return False

    def _read(self):
        while not self._closed:
            try:
                arrived = self._socket.recv(1 << 16)
            except OSError:
                arrived = b""
            if not arrived:
                self._socket.close()
                if not self._connect(10):
                    break
                continue
            self._take(arrived)
            # What comes in small pieces is taken together: this process shares its processors with the guest.
            time.sleep(0.02)

    def _take(self, arrived):
        *whole, self._rest = (self._rest + arrived).split(b"\n")
        now = time.monotonic()
        with self._change:
            for line in whole:
                self.lines.append(line.rstrip(b"\r").decode(errors="replace"))
                self.times.append(now)
            self._change.notify_all()

    def close(self):
        self._closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)

    def send(self, line):
        self._socket.sendall(line.encode() + b"\n")

    @property
    def position(self):
        """How many lines there are: what comes from now on."""
        with self._change:
            return len(self.lines)

    def wait(self, pattern, seconds, since=0):
        """Waits for a line that matches from position `since` on; returns (match, its position)."""
        expression, deadline = re.compile(pattern), time.monotonic() + seconds
        at = since
        with self._change:
            while True:
                while at < len(self.lines):
                    found = expression.search(self.lines[at])
                    if found:
                        return found, at
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Expired(f"no line like {pattern!r} on {self.path} within {seconds} s. The last ones:\n{self.tail()}")
                self._change.wait(left)

    def tail(self, count=30):
        return "\n".join([line for line in self.lines if not line.startswith("#")][-count:] + [repr(self._rest)])

    def text(self):
        return "\n".join(self.lines + [self._rest.decode(errors="replace")])


def check(number):
    """The check a numbered line carries: the low half of guest/linux/programs/load.h `mix`."""
    z = (number * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return (z ^ z >> 31) & 0xFFFFFFFF


def _repeats(line, whole):
    """Whether a line is `whole` but for a part of it that comes twice, the one right after the other."""
    again = len(line) - len(whole)
    return again > 0 and any(line == whole[:end] + whole[end - again:] for end in range(again, len(whole) + 1))


class Numbered:
    """What became of a numbered stream (guest/linux/programs/count.c) within the lines of a console."""

    def __init__(self, lines, tag):
        self.seen, self.twice, self.damaged, self.end = set(), [], [], None
        for line in lines:
            if not line.startswith(f"#{tag} "):
                continue
            words = line.split(" ")
            if words[1] == "end" and len(words) == 3 and words[2].isdigit():
                self.end = int(words[2])
            elif len(words) == 3 and words[1].isdigit() and words[2] == f"{check(int(words[1])):08x}":
                number = int(words[1])
                (self.twice.append(number) if number in self.seen else self.seen.add(number))
            else:
                self.damaged.append(line)
        # All of it came, and a part of it again: the stream's relay was killed between passing bytes on and taking them out.
        self.seen.update(number for number in self.missing if any(_repeats(line, f"#{tag} {number} {check(number):08x}") for line in self.damaged))

    @property
    def missing(self):
        return [number for number in range(self.end or 0) if number not in self.seen]

    def __str__(self):
        return (f"{len(self.seen)} of {self.end} lines, missing {self.missing[:10]}, twice {self.twice[:10]}, damaged {self.damaged[:3]}")
