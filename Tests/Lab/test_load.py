"""A Linux guest under mixed load is handed over again and again, and may notice nothing but the time.

The same guest runs the same load first without handovers: what its kernel says then, it may say later too.
"""
import time

import pytest

from guests import judge, programs
from guests.baton import Blackouts

pytestmark = pytest.mark.handover

HANDOVERS = 100 if programs.LONG else 20
REFERENCE_SECONDS = 60 if programs.LONG else 10
KERNELS = ["7.2", "6.1", "6.12"] if programs.LONG else ["7.2"]


def under_load(guest):
    """Boots it, connects to it, and waits until every load has begun."""
    guest.wait_ready()
    guest.wait_page()
    guest.start_peer()
    return guest


@pytest.mark.parametrize("kernel", KERNELS)
def test_mixed_load_goes_through_handovers(start, tap, figures, kernel):
    guest = under_load(start(tap=tap, kernel=kernel, profile="mixed"))
    time.sleep(REFERENCE_SECONDS)
    reference, before = guest.messages(), guest.page.read()
    guest.page.reset()

    began = time.monotonic()
    records = guest.alternate(HANDOVERS)
    took = time.monotonic() - began

    after, messages = guest.page.read(), guest.messages()
    gap, results = guest.page.gap_ms, guest.finish()
    off = guest.power_off()
    figures(f"{guest.found['kernel']} under mixed load: {Blackouts(records)}")
    figures(f"the guest's largest gap {gap:.0f} ms, its clock {after.error_us(before):+.0f} us off, {60 * HANDOVERS / took:.0f} handovers a minute")
    figures(f"fio {results['disk']}, files {results['files']}, TCP {results['peer'].get('to-mibps')}/{results['peer'].get('from-mibps')} MiB/s, "
            f"cpu {results['cpu']}; boot {guest.boot_seconds:.1f} s, power-off {off:.1f} s")
    judge.all_right(judge.loads(results), judge.clock(before, after), judge.messages(messages, reference), judge.file_system(guest.spec.files))
