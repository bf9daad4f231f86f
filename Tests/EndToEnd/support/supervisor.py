"""baton-keep and batond in a private directory, and the `baton` command line talking to them."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from . import processes, programs
from .control import CallFailed, Control
from .processes import wait_until


class Result:
    """What one `baton` command did."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        """The one JSON value it printed."""
        return json.loads(self.out)

    @property
    def lines(self):
        """One JSON value a line, as streaming commands print them."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self):
        """Short name of the error it printed; None when it printed none."""
        found = self._error
        return found["error"].rpartition(".")[2] if found else None

    @property
    def parameters(self):
        return (self._error or {}).get("parameters", {})

    @property
    def reason(self):
        """What the error says, whichever parameter holds it."""
        parameters = self.parameters
        return parameters.get("reason") or "; ".join(parameters.get("reasons", []))

    @property
    def _error(self):
        lines = [line for line in self.err.splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else None

    def __repr__(self):
        return f"exit {self.code}\nstdout: {self.out[-3000:]}\nstderr: {self.err[-3000:]}"


class Supervisor:
    """A supervisor of its own. `with Supervisor(images) as supervisor:` ends it and everything it started.

    `options` are batond's. `batond` is the program that baton-keep is told to run. `prefix` is put before baton-keep.
    `disks`: a directory of its own in which disks are allowed. `hold` is a step: batond stops there once, having made the file `marker`, until that is removed.
    """

    def __init__(self, images, options=(), batond=None, prefix=(), environment=None, hold=None, disks=False):
        self.images = images
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="baton-e2e-"))
        self.directory.chmod(0o711)  # other users' command lines reach the socket through it
        self.run_directory = self.directory / "run"
        self.socket = self.run_directory / "io.baton.Supervisor"
        self.log_path = self.directory / "log"
        self.marker = self.directory / "held"
        if hold:
            batond, options = programs.BATOND_HELD, ("--hold", hold, "--hold-marker", self.marker, *options)
        self.disks = self.directory / "disks"
        if disks:
            self.disks.mkdir(mode=0o755)
            options = ("--disk-directory", self.disks, *options)
        self.environment = dict(os.environ, **(environment or {}))
        self.command = [
            *prefix, programs.KEEPER, batond or programs.BATOND, "--run-directory", self.run_directory,
            "--image-directory", images.directory, *options,
        ]
        self.keeper = None
        self._mentioned = set()

    # Life

    def start(self):
        with open(self.log_path, "ab") as log:
            self.keeper = subprocess.Popen(
                [str(word) for word in self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        self.wait_ready()
        return self

    def wait_ready(self):
        """Waits until batond answers, and returns its process id."""

        def answers():
            if self.keeper.poll() is not None:
                raise AssertionError(f"baton-keep ended with {self.keeper.returncode}:\n{self.log}")
            try:
                with Control(self.socket) as control:
                    control.call("List")
            except (OSError, CallFailed):
                return False
            return True

        wait_until(answers, lambda: f"batond answers; its log:\n{self.log}", pause=0.05)
        return self.batond

    def stop(self, number=signal.SIGTERM):
        """Ends keeper and batond; machines run on."""
        if self.keeper and self.keeper.poll() is None:
            self.keeper.send_signal(number)
            try:
                self.keeper.wait(processes.PATIENCE)
            except subprocess.TimeoutExpired:
                self.keeper.kill()
                self.keeper.wait()
                raise AssertionError(f"baton-keep did not end on {number!r}; its log:\n{self.log}")
        return self.keeper.returncode if self.keeper else None

    def close(self):
        """Ends everything, workers too, by force where needed, and removes the directory."""
        mine = {found.pid for found in self.family() + self.orphans()}
        try:
            self.stop()
        finally:
            # Workers run on without a keeper, or hang, or are stopped: none of them may stay.
            mine |= {found.pid for found in self.orphans()}
            for pid in mine:
                processes.kill(pid, signal.SIGCONT)
                processes.kill(pid, signal.SIGKILL)

            def gone():
                processes.reap(mine)
                return not any(processes.stat(pid) for pid in mine)

            wait_until(gone, "every process of the supervisor has ended")
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        if error is not None:
            print(f"\nlog of the supervisor:\n{self.log}")
            for log in sorted(self.run_directory.glob("machines/*/worker.log")):
                print(f"{log}:\n{log.read_text(errors='replace')}")
        self.close()

    # Processes

    def family(self):
        """Everything below the keeper."""
        return processes.descendants(self.keeper.pid) if self.keeper else []

    def orphans(self):
        """Workers of this supervisor's machines that outlived the keeper: adopted by this process."""
        return [
            found for found in processes.descendants(os.getpid())
            if found.parent == os.getpid() and self._is_ours(found.pid)
        ]

    def _is_ours(self, pid):
        words = processes.command_line(pid)
        return "--machine" in words and words[words.index("--machine") + 1] in self._mentioned

    @property
    def batond(self):
        """The process id of the batond that lives now; None between two lives."""
        for found in self.family():
            if found.parent == self.keeper.pid and found.name.startswith("batond") and found.state != "Z":
                return found.pid
        return None

    def wait_other_batond(self, past):
        """Waits for a batond other than `past`, ready, and returns its process id."""
        wait_until(lambda: self.batond not in (None, past), lambda: f"another batond than {past}; the log:\n{self.log}")
        return self.wait_ready()

    def workers(self, machine):
        """The living workers of a machine: {generation: pid}."""
        self._mentioned.add(machine)
        found = {}
        for process in self.family() or processes.descendants(os.getpid()):
            if process.state == "Z":
                continue
            words = processes.command_line(process.pid)
            if "--generation" in words and machine in words:
                found[int(words[words.index("--generation") + 1])] = process.pid
        return found

    def zombies(self):
        return [found for found in self.family() if found.state == "Z"]

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, text):
        wait_until(lambda: text in self.log, lambda: f"the log says {text!r}:\n{self.log}")

    def count_log(self, pattern):
        return len(re.findall(pattern, self.log))

    # Commands

    def start_command(self, *arguments, **options):
        """Starts `baton ARGUMENT… --json` and does not wait for it."""
        command = [str(word) for word in (programs.BATON, *arguments, "--json", "--socket", self.socket)]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, **options)

    @staticmethod
    def finish_command(command, seconds=90):
        """Waits for a command that was started."""
        try:
            out, err = command.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            command.kill()
            out, err = command.communicate()
            raise AssertionError(f"no end within {seconds} s: {command.args}\n{out}\n{err}")
        return Result(command.returncode, out, err)

    def baton(self, *arguments, seconds=90):
        """Runs `baton ARGUMENT… --json`."""
        return self.finish_command(self.start_command(*arguments), seconds)

    def baton_text(self, *arguments, seconds=90):
        """Runs `baton ARGUMENT…` as people do."""
        command = [str(word) for word in (programs.BATON, *arguments, "--socket", self.socket)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, env=self.environment)
        return Result(done.returncode, done.stdout, done.stderr)
