"""The control socket without the command line: a varlink client in a few lines, for measurements in which starting a program would count."""
import json
import socket

INTERFACE = "io.baton.Supervisor"


class CallFailed(Exception):
    """The reply was an error."""

    def __init__(self, error, parameters):
        super().__init__(f"{error.rpartition('.')[2]}: {parameters}")
        self.error, self.parameters = error.rpartition(".")[2], parameters


class Control:
    """One connection, one call at a time."""

    def __init__(self, path, seconds=90):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._socket.connect(str(path))
        self._received = b""

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method, **parameters):
        """One reply."""
        self._send(method, parameters)
        return self._reply()["parameters"]

    def stream(self, method, **parameters):
        """Each reply as it comes."""
        self._send(method, parameters, more=True)
        while True:
            reply = self._reply()
            yield reply["parameters"]
            if not reply.get("continues"):
                return

    def upgrade(self, machine, image, progress=lambda step: None):
        """Moves a machine to a worker of another image and returns the record. `progress` gets each step as it begins and ends."""
        for reply in self.stream("Upgrade", machine=machine, image=str(image)):
            record = reply.get("handover")
            if reply.get("step"):
                progress(reply["step"])
        return record

    def _send(self, method, parameters, **flags):
        message = {"method": f"{INTERFACE}.{method}", "parameters": parameters, **flags}
        self._socket.sendall(json.dumps(message).encode() + b"\0")

    def _reply(self):
        while b"\0" not in self._received:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise ConnectionError("the supervisor closed the connection")
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        reply = json.loads(message)
        if "error" in reply:
            raise CallFailed(reply["error"], reply.get("parameters", {}))
        return {"parameters": {}, **reply}
