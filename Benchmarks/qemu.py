"""QEMU with the guest that checks itself, and its own ways to replace itself under it: cpr-transfer and cpr-exec.

The command lines and orders of docs/devel/migration/CPR.rst, with everything that may be done before the guest stops done before.
"""
import collections
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import kernel_trace
from support import clocks, processes, programs
from support.evidence import Evidence

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A QEMU that starts has longer: in the lab, on a busy host, loading it takes its time, and nothing stands still meanwhile.
PATIENCE, PATIENCE_TO_START = 30, 120
# A gap shorter than this is no stop of QEMU's: around one the guest sees dozens of the host's own, and it keeps sixteen.
NOTED = 400_000


class Failed(Exception):
    """QEMU said no, or nothing."""


def installed():
    """How to start the QEMU this machine has."""
    return ["/usr/bin/qemu-system-x86_64"]


def newest():
    """How to start the one of the tree that scripts/qemu-peer makes: by its own loader, with its own libraries and files.

    A suite of the lab is told where the tree is.
    """
    root = os.environ.get("BATON_QEMU_PEER")
    if not root:
        done = subprocess.run([ROOT / "scripts/qemu-peer"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failed("scripts/qemu-peer failed, see above")
        root = done.stdout.strip()
    return [f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", f"{root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu/pulseaudio",
            f"{root}/usr/bin/qemu-system-x86_64", "-L", f"{root}/usr/share/qemu", "-L", f"{root}/usr/share/seabios"]


def version(program):
    try:
        out = subprocess.run([*program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Failed(f"{program[0]}: {error}") from None
    return out.split()[3]


class Monitor:
    """A QMP connection; events are kept until asked for."""

    def __init__(self, path, process):
        deadline = time.monotonic() + PATIENCE_TO_START
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                self._socket.close()
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"QEMU has no monitor at {path}") from None
                time.sleep(0.002)
        self._socket.settimeout(PATIENCE)
        self._received, self.events = b"", []
        self._message()  # the greeting
        self.command("qmp_capabilities")

    def close(self):
        self._socket.close()

    def command(self, name, **arguments):
        self._socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            message = self._message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise Failed(f"{name}: {message['error']['desc']}")
            self.events.append(message)

    def wait(self, accepts):
        """The first event, past or to come, that `accepts`."""
        while True:
            for event in self.events:
                if accepts(event):
                    return event
            self.events.append(self._message())

    def _message(self):
        while b"\n" not in self._received:
            try:
                chunk = self._socket.recv(1 << 16)
            except TimeoutError:
                raise Failed("QEMU's monitor is silent") from None
            if not chunk:
                raise Failed("QEMU closed its monitor")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


def _named(name):
    return lambda event: event.get("event") == name


def _migration(status):
    return lambda event: event.get("event") == "MIGRATION" and event["data"]["status"] in (status, "failed")


def _monotonic(event):
    """When an event was, on CLOCK_MONOTONIC."""
    stamp = event["timestamp"]
    return stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000 - (time.time_ns() - time.monotonic_ns())


def tell_events(monitor):
    """From now on the monitor tells what becomes of a migration."""
    monitor.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])


def threads(pid):
    """The vCPU threads of a QEMU that names them."""
    return kernel_trace.vcpu_threads(pid, r"^CPU (\d+)/KVM$")


def _listens(path):
    """Whether somebody listens on a Unix socket: its name is there before that."""
    with open("/proc/net/unix") as file:
        return any(line.split()[3] == "00010000" and line.rstrip().endswith(f" {path}") for line in file)


# `begin` and `end` are when the guest stood still, as the two monitors tell; all times are CLOCK_MONOTONIC.
Transfer = collections.namedtuple("Transfer", "process monitor ordered begin end")


def transfer(monitor, directory, number, start, ready):
    """cpr-transfer to a new QEMU; returns what runs the guest now.

    `start(options)` starts it and returns (process, its monitor's socket); `ready(process)` is called when all is done that may be done
    before the guest stops.
    """
    address = {"transport": "socket", "type": "unix"}
    cpr, main = ({"channel-type": kind, "addr": {**address, "path": f"{directory}/{kind}-{number}"}} for kind in ("cpr", "main"))
    process, path = start(["-incoming", "defer", "-incoming", json.dumps(cpr)])
    try:
        monitor.command("migrate-set-parameters", mode="cpr-transfer")
        listens = lambda: process.poll() is not None or _listens(cpr["addr"]["path"])
        processes.wait_until(listens, "the new QEMU listens", PATIENCE_TO_START)
        monitor.command("migrate", channels=[main, cpr])
        incoming = Monitor(path, process)
        tell_events(incoming)
        ready(process)
        ordered = time.monotonic_ns()
        incoming.command("migrate-incoming", channels=[main])
        resumed, stopped = incoming.wait(_named("RESUME")), monitor.wait(_named("STOP"))
        if incoming.wait(_migration("completed"))["data"]["status"] == "failed":
            raise Failed("the migration failed")
    except BaseException:
        process.kill()
        process.wait()
        raise
    monitor.close()
    return Transfer(process, incoming, ordered, _monotonic(stopped), _monotonic(resumed))


class Qemu:
    """One machine. `mode`: cpr-transfer or cpr-exec. vCPU i is pinned to `cpus[i % n]`, as everybody's is."""

    def __init__(self, program, mode, directory, memory_mib, vcpus, cpus, trace, options=""):
        self.program, self.mode, self.directory, self.trace = program, mode, pathlib.Path(directory), trace
        self.memory_mib, self.vcpus, self.cpus, self.options = memory_mib, vcpus, cpus, options
        self.number, self.process, self.monitor, self.evidence = 0, None, None, None
        self.directory.mkdir()
        self._log = open(self.directory / "log", "ab")

    # Life

    def __enter__(self):
        try:
            self.process, path = self._start()
            self.monitor = Monitor(path, self.process)
            tell_events(self.monitor)
            self._pin(self.process)
            self._look()
            self.evidence.wait_booted(seconds=PATIENCE_TO_START + self.memory_mib // 20).wait_progress()  # it touches all of it first
            clocks.note_gaps_over(self.evidence, NOTED)
        except Failed as why:
            self.__exit__()
            said = (self.directory / "log").read_text(errors="replace").strip().splitlines()
            raise Failed(f"{why}; it said: {said[0]}" if said else str(why)) from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.monitor:
            self.monitor.close()
        if self.evidence:
            self.evidence.close()
        if self.process:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def _arguments(self, path, incoming=()):
        size = self.memory_mib
        # arch-capabilities: QEMU before 10.1 claims them on AMD as well, where some hosts refuse the MSR and QEMU gives up.
        return [*self.program, "-name", "qemu,debug-threads=on", "-machine", "q35,accel=kvm,memory-backend=ram0,aux-ram-share=on",
                "-object", f"memory-backend-memfd,id=ram0,size={size}M,share=on", "-m", f"{size}M", "-smp", str(self.vcpus),
                "-cpu", "host,arch-capabilities=off",
                "-nodefaults", "-display", "none", "-serial", "null", "-qmp", f"unix:{path},server=on,wait=off", "-kernel", str(programs.HEARTBEAT),
                "-append", f"vcpus={self.vcpus} periodic-us=500000 touch-mib={size} report-ms=1000 {self.options}", *incoming]

    def _start(self, incoming=()):
        self.number += 1
        path = self.directory / f"qmp-{self.number}"
        process = subprocess.Popen(self._arguments(path, incoming), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                   preexec_fn=lambda: os.setpgid(0, 0))
        return process, path

    def _look(self):
        processes.wait_until(lambda: processes.descriptor_path(self.process.pid, "/memfd:memory-backend-memfd"), "QEMU has its memory")
        self.evidence = Evidence(self.process.pid, memory="/memfd:memory-backend-memfd")

    def _pin(self, process):
        for number, thread in processes.wait_until(lambda: threads(process.pid), "QEMU has vCPUs").items():
            os.sched_setaffinity(thread, {self.cpus[number % len(self.cpus)]})

    def pause(self):
        self.monitor.command("stop")

    def resume(self):
        self.monitor.command("cont")

    # Events

    def handover(self):
        began = time.monotonic_ns()
        outgoing = threads(self.process.pid)
        result = self._transfer(outgoing) if self.mode == "cpr-transfer" else self._exec(outgoing)
        return {**result, "total": time.monotonic_ns() - began}

    def _transfer(self, outgoing):
        old = self.process

        def ready(process):
            self._pin(process)
            self._arm([old.pid, process.pid])

        done = transfer(self.monitor, self.directory, self.number, self._start, ready)
        self.process, self.monitor = done.process, done.monitor
        old.kill()
        old.wait()
        return self._judge(outgoing, threads(done.process.pid), done.ordered, done.begin, done.end)

    def _exec(self, outgoing):
        self.number += 1
        path, state = self.directory / f"qmp-{self.number}", self.directory / "state"
        # The state is loaded as soon as QEMU is up: no driver's round trips count.
        command = self._arguments(path, ["-incoming", f"file:{state}"])
        state.unlink(missing_ok=True)
        self.monitor.command("migrate-set-parameters", mode="cpr-exec", **{"cpr-exec-command": command})
        self._arm([self.process.pid])
        ordered = time.monotonic_ns()
        self.monitor.command("migrate", uri=f"file:{state}")
        stopped = self.monitor.wait(_named("STOP"))
        self.monitor.close()
        self.monitor = Monitor(path, self.process)
        processes.wait_until(lambda: self.monitor.command("query-status")["status"] == "running", "QEMU runs again", pause=0.002)
        self._pin(self.process)
        resumed = time.monotonic_ns()
        found = self._judge(outgoing, threads(self.process.pid), ordered, _monotonic(stopped), resumed)
        tell_events(self.monitor)
        return found

    def stop_in_place(self):
        self._arm([self.process.pid])
        same, ordered = threads(self.process.pid), time.monotonic_ns()
        self.monitor.command("stop")
        self.monitor.command("cont")
        return self._judge(same, same, ordered, *(_monotonic(self.monitor.wait(_named(name))) for name in ("STOP", "RESUME")))

    def _arm(self, pids):
        self.monitor.events.clear()
        if self.trace:
            self.trace.follow(pids)
            self.trace.clear()
        self.evidence.reset_gaps()

    def _judge(self, outgoing, incoming, ordered, begin, end):
        self.evidence.wait_progress(20)
        over, gaps = clocks.gap_over(self.evidence, begin, end), clocks.gaps(self.evidence)
        stops = kernel_trace.stops(self.trace.events(), outgoing, incoming, ordered) if self.trace else {}
        kernel = max((entered - left for left, _, entered in stops.values()), default=None)
        return {"outcome": "committed", "stop_gap": over, "since_prepared": max(gap.ns for gap in gaps), "kernel": kernel,
                "told": end - begin, "damage": self.evidence.damage}


def main():
    """By hand: python3 Benchmarks/qemu.py MODE [ROUNDS]."""
    import tempfile
    program = newest() if len(sys.argv) > 3 else installed()
    print(version(program))
    with tempfile.TemporaryDirectory() as place, kernel_trace.KernelTrace() as trace, \
            Qemu(program, sys.argv[1], place + "/q", 64, 1, [1], trace) as qemu:
        for _ in range(int(sys.argv[2])):
            print(qemu.handover(), qemu.stop_in_place(), flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "Tests/EndToEnd"))
    main()
