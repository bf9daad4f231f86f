"""Many machines: upgraded by one command, and what is told of their handovers."""
import json
import re
import signal

import pytest

from support import processes
from support.processes import wait_until

pytestmark = pytest.mark.kvm


@pytest.fixture
def fleet(machines):
    """Five small machines without soak."""
    return [machines(name=f"m{index}", vcpus=1, memory="32MiB") for index in range(1, 6)]


def summary(done):
    return next(line["fleet"] for line in reversed(done.lines) if "fleet" in line)


def versions(fleet):
    return [machine.version for machine in fleet]


def test_all_machines_move_to_another_image(fleet, supervisor, images):
    done = supervisor.baton("upgrade", "--all", "--image", images.next, "--parallel", 3)
    assert done.code == 0, done
    told = summary(done)
    assert sorted(told["upgraded"]) == [machine.name for machine in fleet] and not told["failed"] and not told["skipped"]
    assert told["blackout"]["count"] == 5 and 0 < told["blackout"]["p50Nanoseconds"] <= told["blackout"]["maxNanoseconds"]
    records = [line["handover"] for line in done.lines if "handover" in line]
    assert sorted(record["machine"] for record in records) == [machine.name for machine in fleet]
    for machine in fleet:
        machine.assert_runs()
        assert (machine.version, machine.generation) == ("1.1.0", 2)


def test_no_more_than_so_many_are_under_way(fleet, supervisor, images):
    lines = supervisor.baton("upgrade", "--all", "--image", images.next, "--parallel", 2).lines
    open_machines, most = set(), 0
    for line in lines:
        if "step" in line:
            open_machines.add(line["step"]["machine"])
        elif "handover" in line:
            open_machines.discard(line["handover"]["machine"])
        most = max(most, len(open_machines))
    assert most == 2, most


def test_machines_that_run_the_image_already_are_left_out(fleet, supervisor, images):
    assert fleet[1].upgrade(images.next).code == 0
    assert supervisor.baton("stop", "m5", "--force").code == 0
    done = supervisor.baton("upgrade", "--all", "--image", images.next)
    assert done.code == 0, done
    told = summary(done)
    assert sorted(told["upgraded"]) == ["m1", "m3", "m4"] and sorted(told["skipped"]) == ["m2", "m5"]
    assert fleet[1].generation == 2
    done = supervisor.baton("upgrade", "--all", "--image", images.next)
    assert done.code == 0 and not summary(done)["upgraded"]


def test_after_the_first_failure_no_further_upgrade_is_begun(fleet, supervisor, images):
    bad = images.faulty("crash@load")
    done = supervisor.baton("upgrade", "--all", "--image", bad, "--parallel", 1)
    assert (done.code, done.error) == (4, "NotAllUpgraded"), done
    told = summary(done)
    assert told["failed"] == ["m1"] and told["notStarted"] == ["m2", "m3", "m4", "m5"]
    for machine in fleet:
        machine.assert_runs()
        assert machine.version == "1.0.0"
    assert len(fleet[0].history()) == 1 and not fleet[1].history()


def test_with_keep_going_each_gets_its_turn_and_the_worst_decides(fleet, supervisor, images):
    supervisor.baton("pause", "m2")
    done = supervisor.baton("upgrade", "m1", "m2", "m3", "m9", "--image", images.next, "--parallel", 2, "--keep-going")
    assert done.code == 3, done
    told = summary(done)
    assert sorted(told["upgraded"]) == ["m1", "m3"] and sorted(told["failed"]) == ["m2", "m9"] and not told["notStarted"]
    supervisor.baton("resume", "m2")
    done = supervisor.baton("upgrade", "m1", "m2", "--image", images.faulty("crash@load"), "--keep-going")
    assert done.code == 4 and sorted(summary(done)["failed"]) == ["m1", "m2"], done
    for machine in fleet[:3]:
        machine.assert_runs()


def test_ctrl_c_begins_no_further_one_and_follows_those_under_way(machines, supervisor, images):
    fleet = [machines(name=f"m{index}", vcpus=1, memory="32MiB", soak="3s") for index in range(1, 4)]
    command = supervisor.start_command("upgrade", "--all", "--image", images.next, "--parallel", 1)
    wait_until(lambda: fleet[0].generation == 2, "the first has committed")
    command.send_signal(signal.SIGINT)
    done = supervisor.finish_command(command)
    assert done.code == 130, done
    assert "no further upgrade is begun; waiting for m1" in done.err
    told = summary(done)
    assert told["upgraded"] == ["m1"] and told["notStarted"] == ["m2", "m3"] and not told["leftUnderWay"]
    assert versions(fleet) == ["1.1.0", "1.0.0", "1.0.0"]


def test_a_second_ctrl_c_leaves_those_under_way_to_go_on(machines, supervisor, images):
    fleet = [machines(name=f"m{index}", vcpus=1, memory="32MiB", soak="3s") for index in range(1, 3)]
    command = supervisor.start_command("upgrade", "--all", "--image", images.next, "--parallel", 1)
    wait_until(lambda: fleet[0].generation == 2, "the first has committed")
    command.send_signal(signal.SIGINT)
    line = command.stderr.readline()
    assert "waiting for m1" in line, line
    command.send_signal(signal.SIGINT)
    done = supervisor.finish_command(command, seconds=2.5 + processes.PATIENCE)
    assert done.code == 130 and summary(done)["leftUnderWay"] == ["m1"], done
    fleet[0].wait_state("running")
    assert versions(fleet) == ["1.1.0", "1.0.0"] and fleet[0].history()[0]["outcome"] == "committed"


def test_the_statistics_are_those_of_the_histories(fleet, supervisor, images):
    for image in (images.next, images.honest):
        assert supervisor.baton("upgrade", "--all", "--image", image).code == 0
    assert fleet[0].upgrade(images.faulty("crash@load")).code == 4
    records = [record for machine in fleet for record in machine.history()]
    done = supervisor.baton("stats")
    assert done.code == 0, done
    told = done.json
    assert (told["machines"], told["handovers"]) == (5, 11)
    assert told["outcomes"] == {"committed": 10, "aborted": 1, "reverted": 0, "failed": 0}
    blackouts = sorted(record["blackoutNanoseconds"] for record in records if "blackoutNanoseconds" in record)
    assert told["blackout"]["count"] == len(blackouts) == 10
    assert told["blackout"]["maxNanoseconds"] == blackouts[-1]
    assert abs(told["blackout"]["p50Nanoseconds"] - blackouts[4]) <= blackouts[4] / 500
    assert {(pair["from"], pair["to"]) for pair in told["images"]} >= {("1.0.0", "1.1.0"), ("1.1.0", "1.0.0")}
    assert supervisor.baton("stats", "m1").json["handovers"] == 3
    assert supervisor.baton("stats", "m9").code == 6


def test_a_timeline_accounts_for_every_nanosecond_of_the_blackout(machine, images, supervisor):
    assert machine.upgrade(images.next).code == 0
    done = supervisor.baton("history", machine.name, "--timeline", "--last")
    assert done.code == 0, done
    (entry,) = done.json
    window = entry["timeline"]["blackout"]
    assert window["nanoseconds"] == entry["handover"]["blackoutNanoseconds"]
    names = [part["name"] for part in window["parts"]]
    assert names == ["park", "save", "→ load", "load", "commit", "running"]
    assert sum(part["nanoseconds"] for part in window["parts"]) + window["unattributedNanoseconds"] == window["nanoseconds"], window
    whole = entry["timeline"]["upgrade"]
    assert whole["nanoseconds"] == entry["handover"]["totalNanoseconds"] and "blackout" in [part["name"] for part in whole["parts"]]


def test_the_picture_fits_a_page(machine, images, supervisor):
    assert machine.upgrade(images.next).code == 0
    text = supervisor.baton_text("history", machine.name, "--timeline").out
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120 and any(re.match(r"  unattributed +[0-9.]+ +[0-9.]+ %", line) for line in lines), text
    assert json.loads(supervisor.baton("history", machine.name).out)[0]["outcome"] == "committed"


def test_a_machine_costs_the_supervisor_little_memory(machines, supervisor):
    """The goal is 32 KiB; the bound leaves room for what the allocator keeps. A receive buffer of its own for each worker was 130 KiB."""

    def dirty():
        rollup = open(f"/proc/{supervisor.batond}/smaps_rollup").read()
        return int(re.search(r"^Private_Dirty: +(\d+) kB", rollup, re.M).group(1))

    def start(first, count):
        for index in range(first, first + count):
            machines(name=f"m{index}", vcpus=1, memory="16MiB", cmdline="halt=2")

    # The allocator's arenas, 8 for each CPU, come first.
    start(0, 20)
    before = dirty()
    start(20, 10)
    wait_until(lambda: (dirty() - before) / 10 <= 128, lambda: f"at most 128 KiB for each of 10: {before} before, now {dirty()}")
