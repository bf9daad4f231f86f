"""A Linux guest that runs: what it says, and what it is told. Common to all that run one."""
import re
import time

from . import programs
from .console import Console, Numbered
from .network import Peer
from .page import Page

FIELD = re.compile(r"([\w-]+)=(\S*)")
PROBLEM = re.compile("@problem|@fio error|@cpu wrong|@clock back|@stream (wrong|error)")
# Emulation within emulation on a busy machine.
BOOT_SECONDS = 120


class Running:
    """`pid` is the process that runs it now; `memory` begins the name of its memory among that process's descriptors."""

    memory = "/memfd:"

    def __init__(self, spec):
        self.spec = spec
        self.peer = self.page = None
        self.streams = {}
        self.started = time.monotonic()
        self._since = 0

    # Life

    def connect(self):
        """Reads all its streams from now on."""
        self.serial = self.streams["serial"] = Console(self.spec.socket("serial"))
        for name in ("hvc", "stream"):
            self.streams[name] = Console(self.spec.socket(name))

    def wait_ready(self, seconds=BOOT_SECONDS):
        """Waits until its user space is up; returns what it found there: {kernel, cpus, disks, net, …}."""
        match, at = self.serial.wait("^@ready (.*)", seconds, self._since)
        self.boot_seconds = self.serial.times[at] - self.started
        self.found = dict(FIELD.findall(match[1]))
        self._since = at + 1
        return self.found

    def wait_page(self):
        """Waits until its clocks can be read, and for progress."""
        match, _ = self.serial.wait(r"^@clock page=(0x[0-9a-f]+)", BOOT_SECONDS, self._since)
        if self.page:
            self.page.close()
        self.page = Page(self.pid, int(match[1], 16), self.memory)
        self.page.wait_progress()
        return self.page

    def read_clocks_each(self, us):
        """Its clocks are read that often from now on: a gap is known no better."""
        self._since = self.serial.position
        status, said = self.run(f"kill $clocks; check-clock {us} & clocks=$!")
        assert status == 0, said
        return self.wait_page()

    def start_peer(self):
        self.serial.wait("^@stream listening", BOOT_SECONDS, self._since)
        self.peer = Peer(self.spec.tap.guest, self.spec.rate_kib)

    def close(self):
        for stream in self.streams.values():
            stream.close()
        if self.page:
            self.page.close()
        if self.peer:
            self.peer.close()
        directory = programs.RESULTS / "guests"
        directory.mkdir(parents=True, exist_ok=True)
        for name, stream in self.streams.items():
            (directory / f"{self.spec.name}-{name}-{int(self.started * 10)}.log").write_text(stream.text())

    # Orders

    def order(self, command, until, seconds=60):
        """Sends a line; returns the lines up to the one that matches."""
        since = self.serial.position
        self.serial.send(command)
        match, at = self.serial.wait(until, seconds, since)
        return [line for line in self.serial.lines[since:at] if not line.startswith("#")], match

    def run(self, command, seconds=60):
        """A command of the guest's shell: (status, the lines it printed)."""
        lines, match = self.order(f"run {command}", r"^@ran (\d+)", seconds)
        return int(match[1]), lines

    def messages(self):
        """Kernel messages that may mean trouble."""
        lines, _ = self.order("messages", "^@messages")
        return [line.removeprefix("@dmesg ") for line in lines if line.startswith("@dmesg ")]

    def finish(self, seconds=90):
        """Ends the loads. What each came to: {"cpu": {...}, "clock": …, "disk": …, "files": …, "stream": …, "peer": …, "problems": [...]}."""
        # The stream's totals may come as soon as its other end has finished.
        since = self.serial.position
        results = {"peer": self.peer.finish(seconds)} if self.peer else {}
        self.order("finish", "^@finished", seconds)
        for line in self.serial.lines[since:]:
            word, _, rest = line.removeprefix("@").partition(" ")
            if line.startswith("@") and word != "problem":
                results.setdefault(word, {}).update(FIELD.findall(rest))
        # Since it was ready, not only now.
        results["problems"] = [line for line in self.serial.lines[self._since:] if PROBLEM.match(line)]
        streams = (("tty", "serial"), ("hvc", "hvc"), ("stream", "stream")) if self.spec.profile == "mixed" else ()
        results["numbered"] = {tag: self.numbered(tag, stream) for tag, stream in streams}
        return results

    def numbered(self, tag, stream, seconds=20):
        """The numbered lines of a stream, up to its end."""
        since = self._since if stream == "serial" else 0
        try:
            self.streams[stream].wait(f"^#{tag} end ", seconds, since)
        except AssertionError:
            pass  # the missing end is what the judge will find
        return Numbered(self.streams[stream].lines[since:], tag)
