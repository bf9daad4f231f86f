"""A raw varlink connection that says anything: for what a well-behaved client never sends."""
import json
import socket

INTERFACE = "io.baton.Supervisor"


class Client:
    def __init__(self, path, seconds=30, receive_buffer=None):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(seconds)
        self.socket.connect(str(path))
        self._read = b""

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_bytes(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def send(self, method, more=False, **parameters):
        """One call, without waiting for its reply."""
        name = method if "." in method else f"{INTERFACE}.{method}"
        call = {"method": name, "parameters": parameters}
        if more:
            call["more"] = True
        self.send_bytes(json.dumps(call) + "\0")

    def receive(self):
        """The next message; None when the connection was closed."""
        while b"\0" not in self._read:
            try:
                arrived = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                return None
            if not arrived:
                return None
            self._read += arrived
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.send(method, **parameters)
        reply = self.receive()
        assert reply is not None and "error" not in reply, reply
        return reply.get("parameters", {})

    def error(self, method, **parameters):
        """Name and parameters of the error that a call leads to."""
        self.send(method, **parameters)
        reply = self.receive()
        assert reply is not None and "error" in reply, reply
        return reply["error"], reply.get("parameters", {})
