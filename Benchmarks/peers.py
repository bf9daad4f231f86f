"""What is compared: Baton, the floor, and QEMU's ways to replace itself, each with one machine of the same guest.

Each can be paused, so that only one of them has the processors; `sample()` is one handover with what the guest saw of it.
"""
import functools
import json
import os
import pathlib
import signal
import subprocess
import time

import qemu
from measuring import Rig, note_gaps
from support import clocks, processes, programs
from support.control import CallFailed
from support.evidence import Evidence

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLOOR = programs.OUT / "bench/floor"


class Missing(Exception):
    """A peer cannot be had here, and why."""


def make_floor():
    done = subprocess.run(["make", "-s", "-C", ROOT / "Benchmarks/Floor", f"OUT={FLOOR.parent}"], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"it does not build: {done.stderr.strip().splitlines()[-1:]}")


class Floor:
    """Benchmarks/Floor. `options`: more of the guest's command line."""

    per_round = 4

    def __init__(self, memory_mib, vcpus, cpus, options=""):
        self.command = [FLOOR, programs.HEARTBEAT, memory_mib, vcpus, f"vcpus={vcpus} periodic-us=500000 touch-mib={memory_mib} report-ms=1000 {options}", *cpus]

    def __enter__(self):
        self.process = subprocess.Popen([str(word) for word in self.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()
        self.evidence = Evidence(self.process.pid)
        note_gaps(self.evidence)
        return self

    def __exit__(self, *_):
        self.resume()
        self.evidence.close()
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def _answer(self, order=None):
        if order:
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Missing("it ended, see above")
        return json.loads(line)

    def interrupts(self, vectors, count):
        """What KVM takes to lead the messages of a device to a vCPU, to attach and to detach them, in a VM that has not run; so many times."""
        self._answer("build")
        return [self._answer(f"interrupts {vectors}") for _ in range(count)]

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def sample(self):
        began = time.monotonic_ns()
        self._answer("build")
        time.sleep(0.02)
        self.evidence.reset_gaps()
        done = self._answer("run")
        over, gaps = clocks.gap_over(self.evidence, done["began"], done["ended"]), clocks.gaps(self.evidence)
        return {"outcome": "committed", "stop_gap": over, "since_prepared": max(gap.ns for gap in gaps), "kernel": done["exit_to_run"],
                "total": time.monotonic_ns() - began}

    def control(self):
        return None


class Baton:
    """A supervisor's machine, between the two honest images."""

    per_round = 4

    def __init__(self, supervisor, images, memory_mib, vcpus, cpus, trace, options="", pages=None, devices=()):
        self.rig = Rig(supervisor, memory_mib, vcpus, trace, cpus=cpus, options=options, pages=pages, devices=devices)
        self.images, self.number = (images.next, images.honest), 0

    def __enter__(self):
        self.rig.__enter__()
        return self

    def __exit__(self, *details):
        self.rig.__exit__(*details)

    def pause(self):
        self._call("Pause")

    def resume(self):
        self._call("Resume")

    def _call(self, method):
        """A handover that was answered may still be tidying up. Refused is who is so already."""

        def done():
            try:
                self.rig.control.call(method, machine=self.rig.name)
            except CallFailed as why:
                if why.error not in ("Busy", "Refused"):
                    raise
                return why.error == "Refused"
            return True

        processes.wait_until(done, f"{method} of {self.rig.name}")

    def sample(self):
        self.number += 1
        found = self.rig.handover(self.images[self.number % 2 - 1])
        return {**found, "kernel": found["kernel"]["stopped"]} if found.get("kernel") else found

    def control(self):
        found = self.rig.stop_in_place()
        if found["outcome"] != "resumed":
            self._call("Resume")
        return found


class Qemu(qemu.Qemu):
    per_round = 1

    def sample(self):
        return self.handover()

    def control(self):
        return self.stop_in_place()


@functools.cache
def programs_of_qemu():
    """[(label, command or None, mode, why it is missing)], in the order of the tables. Makes what is missing when it is asked for first."""
    found = []
    wanted = [("QEMU 10.0", qemu.installed, "cpr-transfer"), ("QEMU 11.1", qemu.newest, "cpr-transfer"), ("QEMU 11.1", qemu.newest, "cpr-exec")]
    for name, program, mode in wanted:
        try:
            command = program()
            found.append((f"QEMU {qemu.version(command)} {mode}", command, mode, None))
        except (qemu.Failed, OSError) as why:
            found.append((f"{name} {mode}", None, mode, str(why)))
    return found


def private_bytes(pid, memory="guest-ram"):
    """Private_Dirty of all mappings but guest memory, plus all page tables (VmPTE), of a process."""
    total, counts = 0, True
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            word = line.split(None, 1)[0]
            if not word.endswith(":"):
                counts = memory not in line
            elif counts and word == "Private_Dirty:":
                total += int(line.split()[1]) * 1024
    return total, int(processes.status(pid)["VmPTE"].split()[0]) * 1024


def pin(number, cpus):
    """The CPUs of each of so many vCPUs: one each, from the last CPU down, so that the first is free for everything else for longest."""
    return [cpus[-1 - index % len(cpus)] for index in range(number)]


def host_cpus():
    return sorted(os.sched_getaffinity(0))
