"""What somebody may run in her workspace: an application that is asked in different ways, and misbehaves where it is told to."""

import asyncio
import base64
import hashlib
import json
import sys


async def talk(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            method, path, _ = first.split(" ")
            pairs = [line.split(": ", 1) for line in lines]
            headers = {name.lower(): value for name, value in pairs}
            if path == "/refuse":
                # Answers before it has heard all, and hears the rest slowly.
                writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much")
                await writer.drain()
                await asyncio.sleep(0.5)
            body = await read_body(reader, headers)
            if path == "/refuse":
                continue

            def answer(text, *more, status="200 OK"):
                extra = "".join(f"{line}\r\n" for line in more)
                data = text.encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode() + data)

            match path.split("?")[0]:
                case "/post":
                    answer(f"{len(body)} {hashlib.sha256(body).hexdigest()}")
                case "/echo":
                    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                case "/cookies":
                    answer("", "Set-Cookie: a=1; Domain=test; Path=/", "Set-Cookie: __Host-innkeeper=stolen", "Set-Cookie: innkeeper-url=x")
                case "/away":
                    answer("", "Location: /there", status="302 Found")
                case "/stream":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                    for number in range(50):
                        writer.write(f"data: {number}\n\n".encode())
                        await writer.drain()
                        await asyncio.sleep(0.1)
                    break
                case "/endless":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                    while True:
                        writer.write(b"data: more\n\n")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                case "/upgrade":
                    writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {headers['upgrade']}\r\n\r\n".encode())
                    while data := await reader.read(4096):
                        writer.write(data.upper())
                        await writer.drain()
                    break
                case "/websocket":
                    key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
                    agreed = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n"
                    writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{agreed}\r\n".encode())
                    await echo_frames(reader, writer)
                    break
                case "/babble":
                    writer.write(b"SSH-2.0-not-http\r\n\r\n")
                    break
                case "/two-lengths":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
                    break
                case "/long-head":
                    writer.write(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1_000_000 + b"\r\n\r\n")
                    break
                case "/short":
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nno more")
                    break
                case "/hang-up":
                    break
                case "/never":
                    await asyncio.sleep(3600)
                case _:
                    answer(json.dumps({"method": method, "path": path, "headers": headers}))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def echo_frames(reader, writer):
    """Sends back the text of short frames (RFC 6455, section 5.2), until one is of another kind or not masked."""
    while True:
        first, length = await reader.readexactly(2)
        if first != 0x81 or not 0x80 <= length < 0xFE:
            return
        mask = await reader.readexactly(4)
        data = await reader.readexactly(length - 0x80)
        writer.write(bytes([first, len(data)]) + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))
        await writer.drain()


async def read_body(reader, headers):
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return b""
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += await reader.readexactly(size)
        await reader.readline()
        if size == 0:
            return body


async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", int(sys.argv[1]))
    print("up", flush=True)
    await server.serve_forever()


asyncio.run(main())
