"""An echo server that tries its sockets in turn: what a connection takes without anything that waits for it."""

import resource
import socket
import time

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
listener.setblocking(False)
print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
connections = []
while True:
    try:
        while True:
            connections.append(listener.accept()[0])
    except BlockingIOError:
        pass
    for connection in connections:
        try:
            connection.send(connection.recv(64, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        except ConnectionError:
            # The client has closed one, and with it all.
            raise SystemExit from None
    time.sleep(0.005)
