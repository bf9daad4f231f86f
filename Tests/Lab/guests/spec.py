"""What a Linux guest is started with, whoever runs it."""
import dataclasses
import pathlib

from . import disks, programs
from .network import Tap


@dataclasses.dataclass
class Spec:
    """`kernel`: a directory of guest/linux/build; `pvh`: its ELF file instead of the bzImage; `passed`: machine file entries of passed-through devices."""

    directory: pathlib.Path
    kernel: str = "7.2"
    pvh: bool = False
    vcpus: int = 2
    memory_mib: int = 320
    profile: str = "idle"
    rate_kib: int = 2048
    name: str = "linux"
    words: str = ""
    tap: Tap | None = None
    disk: pathlib.Path | None = None
    disk_directory: pathlib.Path | None = None
    files: pathlib.Path | None = None
    passed: tuple = ()

    def with_devices(self, tap, disk_mib=64, files_mib=64):
        """One disk for fio, one with a file system, a network interface."""
        self.tap = tap
        self.disk = disks.raw((self.disk_directory or self.directory) / f"{self.name}-disk.raw", disk_mib)
        self.files = disks.ext4(self.directory / f"{self.name}-files.raw", files_mib)
        return self

    @property
    def kernel_path(self):
        return programs.GUESTS / self.kernel / ("vmlinux" if self.pvh else "kernel")

    @property
    def initrd_path(self):
        return programs.GUESTS / self.kernel / "initrd"

    @property
    def command_line(self):
        address = f" baton.address={self.tap.guest}/24" if self.tap else ""
        # The lab's kernel would look for a hypervisor's hardware and make old-style terminals, which takes seconds when emulated.
        words = self.words + (" initcall_blacklist=svm_init pty.legacy_count=0 printk.time=1" if self.kernel == "lab" else "")
        # Seconds of printing are saved by `quiet`; errors are still there.
        return f"console=ttyS0 quiet loglevel=4 panic=-1 baton.profile={self.profile} baton.rate={self.rate_kib}{address} {words}".strip()

    def socket(self, stream):
        """The stream socket of `serial`, `hvc` or `stream`."""
        return self.directory / f"{self.name}.{stream}"
