"""Connections of one process that are driven all at once."""

import socket
import ssl
import struct

from servers import Failure

MESSAGE = b"x" * 64
PORTS_PER_ADDRESS, IP_BIND_ADDRESS_NO_PORT = 5_000, 24


class Clients:
    """Connections that are driven all at once."""

    def __init__(self, address, with_tls):
        host, port = address.rsplit(":", 1)
        self.address, self.connections, self.tls = (host, int(port)), [], None
        if with_tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # The server's certificate has signed itself.
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def open_up_to(self, count):
        while len(self.connections) < count:
            connection = socket.socket()
            connection.settimeout(60)
            # The kernel looks long for a free port where few are left.
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((f"127.0.0.{2 + len(self.connections) // PORTS_PER_ADDRESS}", 0))
            connection.connect(self.address)
            # Closed with a reset, so that no port is kept for a minute and the next size finds them all.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connections.append(self.tls.wrap_socket(connection) if self.tls else connection)

    def send(self):
        for connection in self.connections:
            connection.sendall(MESSAGE)

    def receive(self):
        for number, connection in enumerate(self.connections):
            received = b""
            while len(received) < len(MESSAGE):
                part = connection.recv(len(MESSAGE) - len(received))
                if not part:
                    raise Failure(f"connection {number + 1} was closed")
                received += part
            if received != MESSAGE:
                raise Failure(f"connection {number + 1} got back what it did not send")

    def echo(self):
        self.send()
        self.receive()

    def close(self):
        for connection in self.connections:
            connection.close()
