"""What passed-through devices cost a handover: the blackout of an idle Linux guest with 0, 1, 2 and 4 NVMe devices, by phase and back end.

Figures, not verdicts.
"""
import pytest

from guests import passed
from guests.baton import Blackouts

NVME = [f"0000:00:{number:02x}.0" for number in (5, 6, 7, 8)]
HANDOVERS = 10
CASES = [("none", 0)] + [(backend, count) for backend in ("iommufd", "container") for count in (1, 2, 4)]


@pytest.mark.handover
@pytest.mark.parametrize("backend,count", CASES)
def test_blackout(start, figures, backend, count):
    devices = NVME[:count]
    for address in devices:
        passed.give_away(address)
    guest = start(kernel="lab", passed=tuple({"address": address, "backend": backend} for address in devices))
    guest.wait_ready()
    guest.wait_page()
    status, said = guest.run("echo $(ls -d /sys/block/nvme* 2>/dev/null | wc -l)")
    assert (status, said[-1]) == (0, str(count)), said
    figures(f"{count} devices, {backend}: {Blackouts(guest.alternate(HANDOVERS, 0.2))}")
    guest.power_off()
    for address in devices:
        passed.give_back(address)
