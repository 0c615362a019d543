"""Sends to an echo server as fast as it takes it, and reads what comes back: flooder.py HOST:PORT SECONDS.

Prints how many bytes per second came back.
"""

import socket
import sys
import threading
import time

MESSAGE = bytes(1 << 20)
address, lasting_s = sys.argv[1], float(sys.argv[2])
host, port = address.rsplit(":", 1)
connection = socket.create_connection((host, int(port)))
began = time.monotonic()
end = began + lasting_s


def send():
    while time.monotonic() < end:
        connection.sendall(MESSAGE)
    connection.shutdown(socket.SHUT_WR)


sender = threading.Thread(target=send)
sender.start()
buffer, received = bytearray(1 << 20), 0
while count := connection.recv_into(buffer):
    received += count
sender.join()
print(received / (time.monotonic() - began))
