"""Linux uses a network card of the host's, with rings in its memory and MSI-X, through handovers: no byte is missing, and the link stays."""
import pathlib
import subprocess

import pytest

from guests import judge, programs
from guests.baton import Blackouts
from guests.network import Peer
from guests.passed import give_away

pytestmark = pytest.mark.handover

CARD, PEER = "0000:00:08.0", "0000:00:09.0"
HANDOVERS = 100 if programs.LONG else 20


@pytest.fixture(scope="module", autouse=True)
def cards():
    """The card is VFIO's; the other end of its cable is the lab's own."""
    give_away(CARD)
    name = next(pathlib.Path(f"/sys/bus/pci/devices/{PEER}").glob("virtio*/net/*")).name
    for words in (["address", "replace", "10.12.0.1/24", "dev", name], ["link", "set", name, "up"]):
        subprocess.run(["/usr/sbin/ip", *words], check=True)


def link_changes(guest):
    status, lines = guest.run("dmesg | grep -i 'link is'")
    return [line for line in lines if "link is" in line.lower()]


@pytest.mark.parametrize("backend", ["iommufd", "container"])
def test_traffic_goes_on_and_the_link_stays(start, figures, backend):
    guest = start(kernel="lab", profile="mixed", name=f"card-{backend}", words="baton.address=10.12.0.2/24",
                  passed=({"address": CARD, "backend": backend},))
    guest.wait_ready()
    guest.wait_page()
    guest.serial.wait("^@stream listening", 60)
    peer = guest.peer = Peer("10.12.0.2", guest.spec.rate_kib)
    guest.page.wait_progress()
    reference, before = guest.messages(), guest.page.read()
    links = link_changes(guest)

    records = guest.alternate(HANDOVERS)

    after, messages = guest.page.read(), guest.messages()
    assert peer.is_connected
    assert link_changes(guest) == links and len(links) == 1, links
    status, lines = guest.run("cat /proc/interrupts")
    print("\n".join(lines))
    results = guest.finish()
    figures(f"{backend}: {Blackouts(records)}")
    figures(f"TCP {results['peer'].get('to-mibps')}/{results['peer'].get('from-mibps')} MiB/s; interrupts of the card: "
            f"{'; '.join(' '.join(line.split()[-3:]) for line in lines if 'eth0' in line)}")
    for mine, other in (("sent", "received"), ("received", "sent")):
        assert int(results["peer"][mine]) == int(results["stream"][other]) > 0, results
    assert results["stream"]["wrong"] == results["peer"]["wrong"] == "0", results
    judge.all_right(results["problems"], judge.clock(before, after), judge.messages(messages, reference))
    guest.power_off()
