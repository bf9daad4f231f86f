#!/usr/bin/python3
"""The second act of `make demo`, in the lab: a stock Linux with disks, a network and consoles, busy with all of them, gets a newer VMM."""
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "EndToEnd"))
sys.path.insert(0, str(HERE))

from guests import judge  # noqa: E402
from guests.baton import BatonGuest  # noqa: E402
from guests.network import Tap  # noqa: E402
from guests.spec import Spec  # noqa: E402
from support import processes  # noqa: E402
from support.images import Images  # noqa: E402
from support.supervisor import Supervisor  # noqa: E402


def say(subject, text, mark="●"):
    print(f"{mark} {subject:<11} {text}", flush=True)


class Act:
    def __init__(self, guest, images):
        self.guest, self.images, self.failures = guest, images, 0

    def hand_over(self, words, image, expected):
        """One upgrade and what the guest noticed; `expected` is its exit code."""
        machine, page = self.guest.machine, self.guest.page
        page.reset()
        done = machine.upgrade(image)
        page.wait_progress()
        time.sleep(0.5)
        record = next(one for one in machine.history() if one["kind"] != "revert")
        saw = f"guest's largest gap {page.gap_ms:.1f} ms, TCP {'connected' if self.guest.peer.is_connected else 'LOST'}"
        if done.code == 0:
            text = f"committed   blackout {record['blackoutNanoseconds'] / 1e6:.1f} ms   I/O held {record.get('ioHoldNanoseconds', 0) / 1e6:.1f} ms"
        else:
            text = f"{done.error.lower()}: {done.reason}; {machine.version} runs"
        right = done.code == expected and self.guest.peer.is_connected
        self.failures += not right
        say("upgrade", f"{words:<22} {text}   {saw}", "●" if right else "✘")

    def play(self):
        guest = self.guest
        found = guest.wait_ready()
        guest.wait_page()
        guest.start_peer()
        say("linux", f"{found['kernel']}, {found['cpus']} vCPUs, disks {found['disks']}, network, consoles: up after {guest.boot_seconds:.1f} s; "
            "fio with verification, files on ext4, TCP both ways, memory and clocks checked")
        time.sleep(3)
        reference, before = guest.messages(), guest.page.read(4)
        self.hand_over("1.0.0 → next", self.images.next, 0)
        self.hand_over("1.1.0 → broken-load", self.images.faulty("crash-in-load"), 4)
        self.hand_over("1.1.0 → broken-soak", self.images.faulty("unhealthy-in-soak"), 5)
        self.hand_over("1.1.0 → 1.0.0", self.images.honest, 0)
        after, messages, results = guest.page.read(4), guest.messages(), guest.finish()
        say("linux", f"fio: {results['disk'].get('runs')} runs, {results['disk'].get('failed')} failed; {results['files'].get('written')} files, "
            f"{results['files'].get('differ')} differ; TCP {int(results['peer'].get('received', 0)) >> 20} MiB in, "
            f"{int(results['peer'].get('sent', 0)) >> 20} MiB out, {results['peer'].get('wrong')} wrong; clock {after.error_us(before):+.0f} us off")
        guest.power_off()
        wrong = judge.loads(results) + judge.clock(before, after) + judge.messages(messages, reference) + judge.file_system(guest.spec.files)
        say("linux", "powered off, file system clean" if not wrong else "; ".join(wrong), "✘" if wrong else "●")
        return self.failures + len(wrong)


def main():
    processes.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="baton-demo-") as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        images, tap = Images(directory / "images"), Tap()
        with Supervisor(images, ("--disk-directory", directory)) as supervisor:
            spec = Spec(directory, kernel="7.2", profile="mixed").with_devices(tap)
            guest = BatonGuest(supervisor, spec, budget="1s", soak="1s")
            try:
                failures = Act(guest, images).play()
            finally:
                guest.close()
        tap.close()
    sys.exit(f"{failures} of the above did not go as it should" if failures else 0)


if __name__ == "__main__":
    main()
