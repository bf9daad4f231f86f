"""One machine of a supervisor under test."""
import json
import time

from . import processes, programs
from .evidence import Evidence
from .processes import wait_until


class Machine:
    """A machine that runs the guest that checks itself.

    Budgets are generous: tests run beside others on small hosts, and the budget is judged where a test is about it.
    """

    def __init__(self, supervisor, name="web1", image=None, vcpus=2, memory="32MiB", cmdline="", budget="5s", soak="0s",
                 on_failure="revert", on_crash="stop", kernel=None):
        self.supervisor, self.name = supervisor, name
        self.image = image or supervisor.images.honest
        # Periodic timers by the guest's documentation: a period of at least twenty blackouts.
        options = f"vcpus={vcpus} periodic-us=500000 report-ms=200 {cmdline}"
        self.spec = {
            "name": name, "vcpus": vcpus, "memory": {"size": memory},
            "boot": {"kernel": str(kernel or programs.HEARTBEAT), "cmdline": options}, "image": str(self.image),
            "upgrade": {"blackout-budget": budget, "soak": {"duration": soak, "on-failure": on_failure}, "on-crash": on_crash},
        }
        self.file = supervisor.directory / f"{name}.yaml"
        self.evidence = None

    def write(self):
        self.file.write_text(json.dumps(self.spec))
        return self.file

    def run(self, boot_seconds=processes.PATIENCE):
        """Starts it and waits until its guest runs."""
        done = self.supervisor.baton("run", self.write())
        assert done.code == 0, done
        self.evidence = Evidence(self.pid)
        self.evidence.wait_booted(seconds=boot_seconds)
        self.evidence.wait_progress()
        return self

    # What is known of it

    def show(self):
        done = self.supervisor.baton("show", self.name)
        assert done.code == 0, done
        return done.json

    @property
    def state(self):
        return self.show()["machine"]["state"]

    @property
    def generation(self):
        return self.show()["machine"]["generation"]

    @property
    def version(self):
        return self.show()["machine"]["image"]["version"]

    @property
    def pid(self):
        return self.show()["worker"]["pid"]

    @property
    def workers(self):
        return self.supervisor.workers(self.name)

    def history(self):
        """Past handovers, newest first."""
        done = self.supervisor.baton("history", self.name)
        assert done.code == 0, done
        return done.json

    def events(self):
        done = self.supervisor.baton("events", self.name)
        assert done.code == 0, done
        return done.lines

    @property
    def console(self):
        path = self.supervisor.run_directory / "machines" / self.name / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # What is done to it

    def upgrade(self, image):
        return self.supervisor.baton("upgrade", self.name, "--image", image)

    def start_upgrade(self, image):
        return self.supervisor.start_command("upgrade", self.name, "--image", image)

    def finish(self, command):
        return self.supervisor.finish_command(command)

    def rollback(self):
        return self.supervisor.baton("rollback", self.name)

    # Waiting and judging

    def wait_state(self, state, seconds=processes.PATIENCE):
        wait_until(lambda: self.state == state, lambda: f"{self.name} is {state}: {self.show()}", seconds, pause=0.05)

    def wait_worker(self, generation):
        """Waits for a worker of that generation, and returns its process id."""
        return wait_until(lambda: self.workers.get(generation), lambda: f"worker {generation}: {self.workers}\n{self.supervisor.log}")

    def wait_one_worker(self):
        """Past workers end in the background; waits until exactly one is left, and returns its process id."""
        wait_until(lambda: len(self.workers) == 1 and not self.supervisor.zombies(),
                   lambda: f"one worker and no zombie: {self.workers} {self.supervisor.zombies()}", pause=0.05)
        return next(iter(self.workers.values()))

    def descriptors(self):
        """The open descriptors of keeper, batond and worker, once they have stayed the same for a moment: what is being given back
        takes its time on a busy host."""

        def look():
            return {"keeper": processes.descriptors(self.supervisor.keeper.pid), "batond": processes.descriptors(self.supervisor.batond),
                    "worker": processes.descriptors(self.wait_one_worker())}

        def same():
            before = look()
            time.sleep(0.5)
            return before if look() == before else None

        return wait_until(same, "descriptors stay the same")

    def assert_runs(self, gap_ms=None, state="running", devices_held=False):
        """It runs in exactly one worker, and its guest is unharmed."""
        # A batond that has just been started may still be finding out.
        wait_until(lambda: self.state == state, lambda: f"its state is {state}: {self.show()}")
        pid = self.wait_one_worker()
        assert pid == self.pid
        self.evidence.assert_unharmed(gap_ms, devices_held)
        assert "DAMAGE" not in self.console, self.console[-2000:]
