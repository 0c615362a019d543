"""An echo server for WebSocket messages (RFC 6455), for pages to be made of; prints the address it listens on."""

import asyncio
import base64
import hashlib
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE, PING, PONG = 8, 9, 10


def frame(opcode, payload):
    length = len(payload)
    head = struct.pack("!BB", 0x80 | opcode, length) if length < 126 else struct.pack("!BBH", 0x80 | opcode, 126, length)
    return head + payload


async def serve(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
        key = next(value.strip() for name, value in lines if name.lower() == b"sec-websocket-key")
        accepted = base64.b64encode(hashlib.sha1(key + GUID).digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(upgrade + b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n")
        while True:
            first, second = await reader.readexactly(2)
            opcode, length = first & 15, second & 127
            if length == 126:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
            mask = await reader.readexactly(4)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await reader.readexactly(length)))
            writer.write(frame(PONG if opcode == PING else opcode, payload))
            if opcode == CLOSE:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


asyncio.run(main())
