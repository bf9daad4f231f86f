#!/usr/bin/env python3
"""Talks to a supervisor with an independent varlink implementation (PyPI's `varlink`), and fails where it is not understood.

usage: varlink-client.py SOCKET [MACHINE IMAGE]

Calls GetInfo, parses the interface, calls List, and provokes a typed error; with MACHINE and IMAGE it follows an upgrade to its
end. Prints one JSON object a line: {"call": …, "reply": …}. Exit status 0 when everything was as declared.
"""
import json
import sys

import varlink

INTERFACE = "io.baton.Supervisor"


def show(call, reply):
    print(json.dumps({"call": call, "reply": reply}, sort_keys=True), flush=True)


def check(condition, what):
    if not condition:
        sys.exit(f"varlink-client: {what}")


def follow_upgrade(supervisor, machine, image):
    """Every step, then the record; what begins ends before the record."""
    open_steps, steps, record = set(), 0, None
    for reply in supervisor.Upgrade(machine=machine, image=image, _more=True):
        check(record is None, "a reply came after the record")
        if reply.get("step") is not None:
            step = reply["step"]
            check(step["machine"] == machine, f"a step of another machine: {step}")
            steps += 1
            if step["state"] == "begin":
                open_steps.add(step["phase"])
            else:
                open_steps.discard(step["phase"])  # those of the blackout are told when they are over, without a beginning
        else:
            record = reply["handover"]
        show("Upgrade", reply)
    check(record is not None, "the upgrade ended without a record")
    check(record["outcome"] == "committed", f"the upgrade ended {record['outcome']}: {record.get('reason')}")
    check(steps > 0 and not open_steps, f"steps begun and not ended: {open_steps}")


def main(arguments):
    check(len(arguments) in (1, 3), __doc__)
    with varlink.Client(address=f"unix:{arguments[0]}") as client:
        info = client.get_interfaces() and client.info
        show("GetInfo", info)
        check(INTERFACE in client.get_interfaces(), "the interface is not offered")
        with client.open(INTERFACE) as supervisor:
            machines = supervisor.List()["machines"]
            show("List", machines)
            try:
                supervisor.Show(machine="no-such-machine")
                check(False, "a machine that does not exist was shown")
            except varlink.VarlinkError as error:
                show("Show", error.as_dict())
                check(error.error() == f"{INTERFACE}.MachineNotFound", f"the wrong error: {error}")
                check(error.parameters()["machine"] == "no-such-machine", "the error does not name the machine")
            if len(arguments) == 3:
                machine, image = arguments[1:]
                check(machine in [m["name"] for m in machines], f"{machine} is not listed")
                follow_upgrade(supervisor, machine, image)


if __name__ == "__main__":
    main(sys.argv[1:])
