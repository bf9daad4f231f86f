"""A tap for a guest, and the other end of its TCP connection."""
import re
import signal
import subprocess

from . import programs


class Tap:
    """A tap of the lab's own with the address 10.11.NUMBER.1; the guest's is 10.11.NUMBER.2."""

    def __init__(self, number=0, queues=1):
        self.name = f"lab{number}"
        self.queues = queues
        self.guest, self.host = f"10.11.{number}.2", f"10.11.{number}.1"
        more = ["multi_queue"] if queues > 1 else []
        _ip("tuntap", "add", "dev", self.name, "mode", "tap", *more, "vnet_hdr")
        _ip("address", "add", f"{self.host}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def close(self):
        _ip("link", "delete", self.name)


def _ip(*words):
    subprocess.run(["/usr/sbin/ip", *words], check=True)


class Peer:
    """Sends to the guest and reads from it, and compares every byte."""

    def __init__(self, address, kib_per_second=2048, port=5001):
        self.process = subprocess.Popen([programs.LOADS / "stream", "connect", address, str(port), str(kib_per_second)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @property
    def is_connected(self):
        return self.process.poll() is None

    def finish(self, seconds=60):
        """Ends the connection in order. What both directions came to: {sent, received, wrong, ended, …}."""
        self.process.send_signal(signal.SIGTERM)
        try:
            said, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, _ = self.process.communicate()
        found = dict(re.findall(r"(\S+)=(\S+)", said.strip().splitlines()[-1] if said.strip() else ""))
        return {"status": self.process.returncode, "said": said, **found}

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
