"""A Linux guest run by baton-vmm, so that it can be handed over."""
import time

from support import processes
from support.control import CallFailed

from . import account
from .controlled import ControlledMachine
from .running import Running


class LinuxMachine(ControlledMachine):
    """A machine of a supervisor whose guest is Linux."""

    def __init__(self, supervisor, spec, image=None, budget="5s", io_budget="20s", soak="0s", on_failure="revert", on_crash="stop"):
        super().__init__(supervisor, spec.name, image, spec.vcpus, f"{spec.memory_mib}MiB", "", budget, soak, on_failure, on_crash)
        self.spec["boot"] = {"kernel": str(spec.kernel_path), "initrd": str(spec.initrd_path), "cmdline": spec.command_line}
        self.spec["console"] = {"socket": str(spec.socket("serial"))}
        self.spec["upgrade"]["io-hold-budget"] = io_budget
        devices = [{"disk": {"path": str(path), "serial": path.stem}} for path in (spec.disk, spec.files) if path]
        if spec.tap:
            devices.append({"net": {"tap": spec.tap.name, "queues": spec.tap.queues}})
        ports = [{"name": name, "socket": str(spec.socket(name))} for name in ("hvc", "stream")]
        self.spec["devices"] = devices + [{"console": {"ports": ports}}, {"rng": {}}] + [{"vfio": entry} for entry in spec.passed]

    def run(self):
        done = self.supervisor.baton("run", self.write())
        assert done.code == 0, done
        return self

    def assert_runs(self, gap_ms=None, state="running", devices_held=False):
        """It runs in exactly one worker."""
        assert self.state == state, self.show()
        assert self.wait_one_worker() == self.pid


class BatonGuest(Running):
    """A guest in a machine of a supervisor."""

    memory = "/memfd:guest-ram"

    def __init__(self, supervisor, spec, **options):
        super().__init__(spec)
        self.machine = LinuxMachine(supervisor, spec, **options).run()
        self.connect()

    @property
    def pid(self):
        return self.machine.pid

    # Handovers

    def hand_over(self, image, progress=lambda step: None):
        """One upgrade that must commit; returns its record. The guest was seen to go on. `progress` gets each step."""
        done = self.machine.upgrade(image, progress)
        assert done.code == 0, f"{done}\n{self.machine.supervisor.log[-3000:]}"
        record = done.json
        assert record["outcome"] == "committed", record
        if self.page:
            with account.Watch("guest", 15, lambda: self.machine.workers.values()):
                self.page.wait_progress()
        return record

    def alternate(self, count, pause=0.0):
        """That many handovers between the two honest versions; returns their records."""
        images, records = self.machine.supervisor.images, []
        for number in range(count):
            records.append(self.hand_over(images.next if number % 2 == 0 else images.honest))
            time.sleep(pause)
        return records

    def power_off(self, seconds=60):
        """Tells the guest to, and waits for the machine's end; returns how long that took."""
        began = time.monotonic()
        self.serial.send("poweroff")
        self.wait_ended(seconds)
        return time.monotonic() - began

    def wait_ended(self, seconds=60):
        """The guest powered off, and its machine has ended in order."""
        processes.wait_until(lambda: self.ended, lambda: f"{self.spec.name} has powered off:\n{self.serial.tail()}\n{self.machine.supervisor.log[-2000:]}", seconds, 0.1)

    @property
    def ended(self):
        try:
            return self.machine.state == "stopped"
        except CallFailed:
            return True


class Blackouts:
    """The figures of many handovers."""

    def __init__(self, records):
        self.records = records
        self.blackouts = sorted(record["blackoutNanoseconds"] / 1e6 for record in records)
        self.holds = sorted(record["ioHoldNanoseconds"] / 1e6 for record in records if record.get("ioHoldNanoseconds") is not None)

    @staticmethod
    def _spread(values):
        return f"median {values[len(values) // 2]:.1f} ms, most {values[-1]:.1f} ms" if values else "none"

    def __str__(self):
        names = [phase["name"] for phase in self.records[0]["phases"]]
        phases = []
        for name in names:
            times = sorted(phase["nanoseconds"] / 1e6 for record in self.records for phase in record["phases"] if phase["name"] == name)
            phases.append(f"{name} {times[len(times) // 2]:.2f}")
        text = f"{len(self.records)} handovers, blackout {self._spread(self.blackouts)} (medians by phase, ms: {', '.join(phases)})"
        return text + (f", I/O held {self._spread(self.holds)}" if self.holds else "")
