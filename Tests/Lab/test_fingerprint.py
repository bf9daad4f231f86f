"""What a Linux guest can see of its machine is the same, to the byte, before and after handovers."""
import pytest

pytestmark = pytest.mark.handover

KINDS = ("cpuid", "msr", "pci", "acpi")

# Setting them makes KVM write guest memory, which may be something else by now (docs/handover.md): they read 0 after a handover.
NOT_RESTORED = ("00000011", "4b564d00")
# SYSENTER_ESP and _EIP: AMD's processors and KVM keep 32 bits, QEMU's emulation of one keeps what the guest writes directly.
NARROW = ("00000175", "00000176")


def fingerprint(guest):
    """Everything the guest's program prints: {(kind, name): value}."""
    status, lines = guest.run("fingerprint", 120)
    assert status == 0 and lines[-1] == "@print end", lines[-5:]
    found = {tuple(words[1:3]): words[3] for words in (line.split(" ") for line in lines[:-1]) if len(words) == 4}
    for kind, name in list(found):
        if kind == "msr" and name.partition(".")[2] in NOT_RESTORED:
            del found[kind, name]
        elif kind == "msr" and name.partition(".")[2] in NARROW:
            found[kind, name] = found[kind, name][-8:]
    return found


def test_the_guest_sees_the_same_machine(start, tap, figures):
    guest = start(tap=tap, kernel="7.2")
    guest.wait_ready()
    guest.wait_page()
    before = fingerprint(guest)
    counts = {kind: sum(1 for found, _ in before if found == kind) for kind in KINDS}
    assert all(counts.values()), f"something cannot be read in the guest: {counts}"
    # What changes by itself would make the comparison worth nothing.
    again = fingerprint(guest)
    unsteady = {key for key in before if again.get(key) != before[key]}
    assert not unsteady, f"this changes without a handover: {unsteady}"

    for image in (guest.machine.supervisor.images.next, guest.machine.supervisor.images.honest):
        guest.hand_over(image)
        after = fingerprint(guest)
        differ = {key: (before.get(key), after.get(key)) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert not differ, f"after {guest.machine.version} took over: {differ}"
    guest.power_off()
    figures("the same before and after: " + ", ".join(f"{count} of {kind}" for kind, count in counts.items()))
