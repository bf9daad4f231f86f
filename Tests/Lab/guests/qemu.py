"""A Linux guest run by QEMU, with the devices a guest of Baton has: to compare with, and to try a test without handovers."""
import os
import subprocess
import time

from . import programs
from .running import Running


class QemuGuest(Running):
    """A guest in a QEMU of its own."""

    memory = "/memfd:memory-backend-memfd"
    program, machine = (programs.QEMU,), "q35,memory-backend=ram"

    def __init__(self, spec, accelerator="kvm"):
        super().__init__(spec)
        self.accelerator = accelerator
        self.process = self._start(spec)
        try:
            self.connect()
        except OSError as error:
            raise AssertionError(f"{error}; QEMU said: {self.log.read_text()}")

    @property
    def pid(self):
        return self.process.pid

    @property
    def log(self):
        return self.spec.directory / f"{self.spec.name}.qemu"

    def _start(self, spec, *more):
        with open(spec.directory / f"{spec.name}.qemu", "wb") as log:
            return subprocess.Popen([*self._command(spec), *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _command(self, spec):
        queues = 1
        chardev = lambda stream: f"socket,id={stream},path={spec.socket(stream)},server=on,wait=off"
        command = [
            *self.program, "-accel", self.accelerator, "-cpu", "host" if self.accelerator == "kvm" else "EPYC", "-smp", str(spec.vcpus),
            "-m", f"{spec.memory_mib}M", "-object", f"memory-backend-memfd,id=ram,size={spec.memory_mib}M,share=on",
            "-machine", self.machine, "-display", "none", "-nodefaults", "-no-user-config",
            "-kernel", spec.kernel_path, "-initrd", spec.initrd_path, "-append", spec.command_line,
        ]
        # As Baton's: straight through the host's page cache, flushed when the guest says so.
        for number, path in enumerate(path for path in (spec.disk, spec.files) if path):
            command += ["-drive", f"file={path},format=raw,if=none,id=d{number},cache=writeback,aio=threads,discard=unmap",
                        "-device", f"virtio-blk-pci,drive=d{number},disable-legacy=on"]
        if spec.tap:
            queues = spec.tap.queues
            more = f",queues={queues}" if queues > 1 else ""
            command += ["-netdev", f"tap,id=n0,ifname={spec.tap.name},script=no,downscript=no,vhost=off{more}",
                        "-device", "virtio-net-pci,netdev=n0,disable-legacy=on,romfile=" + (f",mq=on,vectors={2 * queues + 2}" if queues > 1 else "")]
        command += ["-chardev", chardev("serial"), "-serial", "chardev:serial", "-device", "virtio-serial-pci,disable-legacy=on",
                    "-chardev", chardev("hvc"), "-device", "virtconsole,chardev=hvc",
                    "-chardev", chardev("stream"), "-device", "virtserialport,chardev=stream,name=stream",
                    "-device", "virtio-rng-pci,disable-legacy=on"]
        return [str(word) for word in command]

    def power_off(self, seconds=30):
        """Tells it to, and waits for QEMU's end; returns how long that took."""
        began = time.monotonic()
        self.serial.send("poweroff")
        assert self.process.wait(seconds) == 0, self.log.read_text()
        return time.monotonic() - began

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        super().close()


def is_there():
    return os.access(programs.QEMU, os.X_OK)
