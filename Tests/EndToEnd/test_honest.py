"""Handovers between two honest images: the guest does not notice."""
import pytest

pytestmark = pytest.mark.kvm


def committed(done):
    assert done.code == 0, done
    record = done.lines[-1]["handover"]
    assert record["outcome"] == "committed", record
    return record


def test_an_upgrade_moves_a_running_guest_to_the_newer_image(machine, images):
    machine.evidence.reset_counters()
    record = committed(machine.upgrade(images.next))
    assert (record["fromGeneration"], record["toGeneration"]) == (1, 2)
    assert (record["fromImage"]["version"], record["toImage"]["version"]) == ("1.0.0", "1.1.0")
    machine.assert_runs(gap_ms=5000)
    assert machine.version == "1.1.0"
    assert machine.generation == 2
