"""For how long a handover holds back requests of a guest that is busy with its disk, beside how long those take otherwise: figures, not verdicts.

The disk is a file in the lab's memory. The hold is from the moment at which the first device takes no more requests until the guest runs again.
"""
import json

import pytest

from guests import programs
from guests.spec import Spec

SECONDS, HANDOVERS = (20, 200) if programs.LONG else (10, 40)
REPORT = "/tmp/fio.json"
JOBS = {"4 KiB, 1 at a time": "--bs=4k --iodepth=1", "4 KiB, 16 at a time": "--bs=4k --iodepth=16", "128 KiB, 16 at a time": "--bs=128k --iodepth=16"}


def fio(options, more):
    return (f"fio --name=b --filename=/dev/vda --direct=1 --ioengine=io_uring --rw=randrw --size=48m {options} --time_based {more} --eta=never "
            f"--output-format=json --output={REPORT}")


def latency(guest):
    """The 50th and 99th percentile of what a request took, ms: of reads or writes, whichever is more."""
    status, said = guest.run(f"cat {REPORT}", 60)
    assert status == 0, said
    text = "\n".join(said)
    job = json.loads(text[text.index("{"):text.rindex("}") + 1])["jobs"][0]
    assert job["error"] == 0, job
    return [max(job[way]["clat_ns"]["percentile"][name] for way in ("read", "write")) / 1e6 for name in ("50.000000", "99.000000")]


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, len(values) * percent // 100)]


@pytest.mark.handover
def test_io_hold(start, tap, figures):
    guest = start(tap=tap, kernel="7.2", profile="idle", options={"io_budget": "20s"})
    guest.wait_ready()
    figures(f"{'ms':24}{'a request: p50':>16}{'p99':>8}{'hold: p50':>12}{'p99':>8}{'most':>8}   p99 of the hold − p99 of a request")
    for name, options in JOBS.items():
        status, said = guest.run(fio(options, f"--runtime={SECONDS}"), SECONDS + 60)
        assert status == 0, said
        usual = latency(guest)
        status, said = guest.run(f"{fio(options, '--runtime=3600')} >/dev/null 2>&1 & echo $! > /tmp/fio.pid; usleep 2000000; kill -0 $(cat /tmp/fio.pid)")
        assert status == 0, said
        holds = [record["ioHoldNanoseconds"] / 1e6 for record in guest.alternate(HANDOVERS, 0.2)]
        status, said = guest.run("kill -0 $(cat /tmp/fio.pid) && kill $(cat /tmp/fio.pid); usleep 2000000")
        assert status == 0, said
        p50, p99 = percentile(holds, 50), percentile(holds, 99)
        figures(f"{name:24}{usual[0]:>16.2f}{usual[1]:>8.2f}{p50:>12.1f}{p99:>8.1f}{max(holds):>8.1f}   {p99 - usual[1]:+.1f}")
    guest.power_off()
