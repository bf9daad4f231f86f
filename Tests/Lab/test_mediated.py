"""A mediated device, the kernel's sample of a serial port: passed through by iommufd, and refused where no other process could take it over."""
import pathlib

import pytest

from guests import programs
from support import processes

pytestmark = pytest.mark.handover

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
MDEV = pathlib.Path("/sys/bus/mdev/devices") / UUID


@pytest.fixture
def mediated():
    pathlib.Path("/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create").write_text(UUID)
    processes.wait_until(MDEV.exists, "the mediated device")
    yield UUID
    (MDEV / "remove").write_text("1")


def test_by_iommufd_it_goes_through_handovers(start, mediated, figures):
    guest = start(kernel="lab", profile="idle", passed=({"address": mediated},))
    guest.wait_ready()
    guest.wait_page()
    assert guest.machine.show()["devices"][-1]["spec"]["vfio"] == {"address": mediated, "backend": "iommufd"}

    def seen():
        status, said = guest.run("echo $(cat /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device)")
        assert status == 0, said
        return said[-1]

    before = seen()
    assert "0x4348" in before and "0x3253" in before, before
    for number in range(4):
        guest.hand_over(guest.machine.supervisor.images.next if number % 2 == 0 else guest.machine.supervisor.images.honest)
        assert seen() == before
    guest.power_off()


def test_in_a_container_it_is_refused_with_the_reason(supervisor, mediated, directory):
    file = directory / "mediated.yaml"
    file.write_text(f"{{name: mediated, vcpus: 1, memory: {{size: 64MiB}}, boot: {{kernel: {programs.GUESTS}/lab/kernel}}, image: {supervisor.images.honest},\n"
                    f" devices: [{{vfio: {{address: {mediated}, backend: container}}}}]}}")
    done = supervisor.baton("run", file)
    assert (done.code, done.error) == (3, "Refused"), done
    assert "VFIO_UPDATE_VADDR" in done.reason and "backend: iommufd" in done.reason, done.reason
