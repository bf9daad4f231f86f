"""Worker images, honest and faulty, in a directory that supervisors under test allow."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

from . import programs


def version(image):
    """What an image says its version is."""
    return json.loads(subprocess.run([image, "--describe"], capture_output=True, check=True).stdout)["version"]


class Images:
    """`honest` and `next` are the two versions that differ; `faulty("hang@load")` is one with that fault."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(mode=0o755)
        self.honest = self.copy(programs.IMAGES / "baton-vmm", "baton-vmm")
        self.next = self.copy(programs.IMAGES / "baton-vmm-next", "baton-vmm-next")

    def copy(self, source, name):
        target = self.directory / name
        shutil.copyfile(source, target)
        target.chmod(0o755)
        return target

    def faulty(self, faults):
        """A copy of baton-vmm-faulty with these faults, words separated by spaces (Sources/baton-vmm-faulty/Fault.swift)."""
        name = "faulty-" + "".join(c if c.isalnum() else "-" for c in faults)
        target = self.directory / (name[:80] + "-" + hashlib.sha256(faults.encode()).hexdigest()[:8])
        if not target.exists():
            fresh = target.with_name(target.name + ".new")
            subprocess.run([programs.STAMP, programs.IMAGES / "baton-vmm-faulty", faults, fresh], check=True)
            fresh.chmod(0o755)
            os.rename(fresh, target)
        return target

    def script(self, name, text):
        """An image that is a file of this content."""
        target = self.directory / name
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        target.chmod(0o755)
        return target
