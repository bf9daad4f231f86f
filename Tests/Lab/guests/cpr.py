"""A Linux guest run by the newest QEMU and handed over by its cpr-transfer, with the devices a guest of Baton has, passed-through ones as well."""
import dataclasses

import qemu as peer

from .qemu import QemuGuest


class CprGuest(QemuGuest):
    """A guest of which every handover makes a new QEMU. Each has sockets of its own: the guest's streams are connected to anew."""

    machine = QemuGuest.machine + ",aux-ram-share=on"

    def __init__(self, spec):
        self.program, self.number, self.monitor = peer.newest(), 0, None
        super().__init__(spec)
        self.monitor = peer.Monitor(spec.socket("qmp"), self.process)
        peer.tell_events(self.monitor)

    def _command(self, spec):
        command = super()._command(spec) + ["-name", "guest,debug-threads=on", "-qmp", f"unix:{spec.socket('qmp')},server=on,wait=off"]
        if any(entry["backend"] == "iommufd" for entry in spec.passed):
            command += ["-object", "iommufd,id=iommufd0"]
        for number, entry in enumerate(spec.passed):
            backend = ",iommufd=iommufd0" if entry["backend"] == "iommufd" else ""
            command += ["-device", f"vfio-pci,host={entry['address']},id=passed{number}{backend}"]
        return command

    def hand_over(self, ready=lambda outgoing, incoming: None):
        """One cpr-transfer. `ready` gets both process ids when all is done that may be done before the guest stops. The guest was seen to go on."""
        old, self.number = self.process, self.number + 1
        spec = dataclasses.replace(self.spec, name=f"{self.spec.name.partition('.')[0]}.{self.number}")
        try:
            done = peer.transfer(self.monitor, spec.directory, self.number, lambda options: (self._start(spec, *options), spec.socket("qmp")),
                                 lambda process: ready(old.pid, process.pid))
        except Exception as error:
            said = "".join(path.read_text(errors="replace") for path in (self.log, spec.directory / f"{spec.name}.qemu") if path.exists())
            raise AssertionError(f"{error}; the QEMUs said: {said}") from error
        old.kill()
        old.wait()
        self.process, self.monitor, self.spec, self._since = done.process, done.monitor, spec, 0
        for stream in self.streams.values():
            stream.close()
        self.connect()
        self.page.wait_progress()
        return done

    def close(self):
        if self.monitor:
            self.monitor.close()
        super().close()
