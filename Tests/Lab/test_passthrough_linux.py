"""Linux uses several devices of the host's at once, by both back ends, through handovers: an NVMe device, a network card, a mediated device.

fio writes to the one and reads back what it wrote, TCP goes both ways over the other. Nothing may be lost, wrong, late enough to be noticed, or reset.
"""
import pathlib
import subprocess

import pytest

from guests import judge, passed, programs
from guests.baton import Blackouts
from guests.network import Peer
from support import processes

pytestmark = pytest.mark.handover

NVME, CARD, PEER = "0000:00:05.0", "0000:00:08.0", "0000:00:09.0"
UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
MEDIATED = pathlib.Path("/sys/bus/mdev/devices") / UUID
HANDOVERS = 100 if programs.LONG else 20


@pytest.fixture
def devices():
    """NVMe device and card are VFIO's; the other end of the card's cable is the lab's own."""
    passed.give_away(NVME)
    passed.give_away(CARD)
    name = next(pathlib.Path(f"/sys/bus/pci/devices/{PEER}").glob("virtio*/net/*")).name
    for words in (["address", "replace", "10.12.0.1/24", "dev", name], ["link", "set", name, "up"]):
        subprocess.run(["/usr/sbin/ip", *words], check=True)
    yield
    passed.give_back(NVME)


@pytest.fixture
def mediated():
    """The kernel's sample of a serial port."""
    pathlib.Path("/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create").write_text(UUID)
    processes.wait_until(MEDIATED.exists, "the mediated device")
    yield UUID
    (MEDIATED / "remove").write_text("1")


class Traffic:
    """What a guest's card has done and is doing."""

    def __init__(self, guest):
        guest.serial.wait("^@stream listening", 60)
        self.guest = guest
        self.peer = guest.peer = Peer("10.12.0.2", guest.spec.rate_kib)
        self.links = self.link_changes()

    def link_changes(self):
        status, lines = self.guest.run("dmesg | grep -i 'link is'")
        return [line for line in lines if "link is" in line.lower()]

    def wrong(self, results):
        """What is wrong, in words, by what the loads came to."""
        peer, stream = results["peer"], results.get("stream", {})
        wrong = [] if self.link_changes() == self.links and len(self.links) == 1 else [f"the link: {self.link_changes()}"]
        for mine, other in (("sent", "received"), ("received", "sent")):
            if not 0 < int(peer.get(mine, 0)) == int(stream.get(other, 0)):
                wrong.append(f"TCP: the host {mine} {peer}, the guest {other} {stream}")
        return wrong + [f"TCP: {side}" for side in (peer, stream) if side.get("wrong") != "0"]


def identities(guest):
    status, said = guest.run("echo $(cat /sys/bus/pci/devices/*/vendor /sys/bus/pci/devices/*/device)")
    assert status == 0, said
    return said[-1]


@pytest.mark.parametrize("disk,card", [("iommufd", "container"), ("container", "iommufd")])
def test_devices_of_both_back_ends_go_through_handovers(start, devices, mediated, figures, disk, card):
    guest = start(kernel="lab", profile="disk", words="baton.device=/dev/nvme0n1 baton.address=10.12.0.2/24", rate_kib=1024,
                  passed=({"address": NVME, "backend": disk}, {"address": CARD, "backend": card}, {"address": mediated}))
    guest.wait_ready()
    guest.wait_page()
    traffic = Traffic(guest)
    specs = [device["spec"]["vfio"]["backend"] for device in guest.machine.show()["devices"] if "vfio" in device["spec"]]
    assert specs == [disk, card, "iommufd"]
    ram, images = guest.spec.memory_mib << 20, guest.machine.supervisor.images
    seen, reference, before = identities(guest), guest.messages(), guest.page.read()
    assert "0x4348" in seen and "0x3253" in seen, seen

    records = []
    for number in range(HANDOVERS):
        records.append(guest.hand_over(images.next if number % 2 == 0 else images.honest))
        for backend in ("iommufd", "container"):
            passed.wait_charged(guest.machine.wait_one_worker(), backend, ram)

    after, messages = guest.page.read(), guest.messages()
    assert traffic.peer.is_connected
    assert identities(guest) == seen
    results = guest.finish()
    figures(f"NVMe by {disk}, e1000e by {card}: {Blackouts(records)}")
    figures(f"fio {results.get('disk')}; TCP {results['peer'].get('to-mibps')}/{results['peer'].get('from-mibps')} MiB/s")
    wrong = traffic.wrong(results)
    found = passed.judge_namespace(guest, NVME)
    judge.all_right(results["problems"], wrong, judge.disk(results), found, judge.clock(before, after), judge.messages(messages, reference))


def test_a_mediated_device_in_a_container_is_refused_with_the_reason(supervisor, mediated, directory):
    file = directory / "mediated.yaml"
    file.write_text(f"{{name: mediated, vcpus: 1, memory: {{size: 64MiB}}, boot: {{kernel: {programs.GUESTS}/lab/kernel}}, image: {supervisor.images.honest},\n"
                    f" devices: [{{vfio: {{address: {mediated}, backend: container}}}}]}}")
    done = supervisor.baton("run", file)
    assert (done.code, done.error) == (3, "Refused"), done
    assert "VFIO_UPDATE_VADDR" in done.reason and "backend: iommufd" in done.reason, done.reason
