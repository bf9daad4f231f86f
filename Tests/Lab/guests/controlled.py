"""A machine that is asked over the control socket: in the lab, starting the command line costs more than what it asks for."""
import json

from support.control import CallFailed, Control
from support.machine import Machine
from support.supervisor import Result

from . import account

# Nothing that is meant to be slow takes longer.
SLOW_UPGRADE_SECONDS = 60
# Of `baton`, by the error.
EXIT_CODES = {"Refused": 3, "Busy": 3, "Aborted": 4, "Reverted": 5}


class ControlledMachine(Machine):
    def _call(self, method, **parameters):
        with Control(self.supervisor.socket) as control:
            return control.call(method, machine=self.name, **parameters)

    def show(self):
        return self._call("Show")["details"]

    def history(self):
        return self._call("History")["handovers"]

    def upgrade(self, image, progress=lambda step: None):
        try:
            with account.Watch("upgrade", SLOW_UPGRADE_SECONDS, lambda: self.workers.values()), Control(self.supervisor.socket) as control:
                return Result(0, json.dumps(control.upgrade(self.name, image, progress)), "")
        except CallFailed as failure:
            said = {"error": failure.error, "parameters": failure.parameters}
            return Result(EXIT_CODES.get(failure.error, 1), "", json.dumps(said))
