#!/usr/bin/python3
"""An init that is not what it should be. What it does to those who open something is in the file `mode` of the home."""

import array
import os
import signal
import socket
import struct
import threading
import time

OPENED, FAILED, EXITED, TERMINALS, CONNECTED, LISTENING, ACCEPTED, SERVICES, KEEP_ASKED, STATUS_ASKED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 11


def encode(value):
    """CBOR, as much of it as the protocol has."""
    def head(kind, number):
        if number < 24:
            return bytes([kind << 5 | number])
        for tag, shape, limit in [(24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32), (27, ">Q", 1 << 64)]:
            if number < limit:
                return bytes([kind << 5 | tag]) + struct.pack(shape, number)
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(4, len(value)) + b"".join(map(encode, value))


def decode(data, at=0):
    kind, number = data[at] >> 5, data[at] & 31
    at += 1
    if 24 <= number <= 27:
        size = 1 << (number - 24)
        number = int.from_bytes(data[at:at + size], "big")
        at += size
    if kind == 0:
        return number, at
    if kind in (2, 3):
        return data[at:at + number], at + number
    if kind == 4:
        items = []
        for _ in range(number):
            item, at = decode(data, at)
            items.append(item)
        return items, at
    return None, at


def mode():
    try:
        with open("/home/user/mode") as file:
            return file.read().strip()
    except OSError:
        return "silent"


def say(gateway, report, descriptors=()):
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    gateway.sendmsg([report if isinstance(report, bytes) else encode(report)], beside)


def lingering(kept=[]):
    """A connection that whoever closes it last waits for, for an hour."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.create_connection(listener.getsockname())
        kept.append(listener.accept()[0])
    near.setblocking(False)
    try:
        while True:
            near.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    return near.detach()


def inside(kind):
    """A socket with such a connection in its queue."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    one = lingering()
    socket.send_fds(theirs, [b"x"], [one])
    os.close(one)
    return ours.detach()


def kinds(how):
    """Three descriptors of a kind."""
    if how == "file":
        return [os.open("/etc/passwd", os.O_RDONLY) for _ in range(3)]
    if how == "directory":
        return [os.open("/", os.O_RDONLY) for _ in range(3)]
    if how == "whole":
        return [one.detach() for _ in range(2) for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)][:3]
    if how == "terminal":
        return [os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY) for _ in range(3)]
    if how == "netlink":
        return [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach() for _ in range(3)]
    if how == "datagrams":
        return [socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach() for _ in range(3)]
    if how == "event":
        return [os.eventfd(0), os.memfd_create("x"), os.pidfd_open(os.getpid())]
    if how == "wrong-ends":
        return [os.pipe()[0], os.pipe()[1], os.pipe()[1]]
    if how == "named":
        os.path.exists("/tmp/fifo") or os.mkfifo("/tmp/fifo")
        return [os.open("/tmp/fifo", os.O_RDWR) for _ in range(3)]
    if how == "lingering":
        return [lingering() for _ in range(3)]
    if how == "lingering-inside":
        return [inside(kind) for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)]
    if how == "none":
        return []
    if how == "few":
        return [os.pipe()[0]]
    return [os.pipe()[0] for _ in range(253)]


def flood(gateway, reports, descriptors=()):
    until = time.monotonic() + 6
    while time.monotonic() < until:
        for report in reports:
            say(gateway, report, descriptors)


def on_open(gateway, request):
    how = mode()
    opened = [OPENED, [request, request, False]]
    if how == "silent":
        return
    if how == "half":
        # The descriptors, and no more than the beginning of the words.
        say(gateway, encode(opened)[:2], kinds("few"))
    elif how == "close":
        gateway.close()
    elif how == "garbage":
        say(gateway, os.urandom(300))
    elif how == "deep":
        say(gateway, b"\x82\x08\x81" + b"\x81" * 60000)
    elif how == "long-list":
        say(gateway, b"\x82\x08\x81\x9b\x00\x00\x00\x7f\xff\xff\xff\xff")
    elif how == "oversized":
        say(gateway, bytes(150_000))
    elif how == "no-pipes-but-a-tale":
        say(gateway, [LISTENING, [request, 1, [0, ["x" * 60000, 1]]]])
    elif how == "news":
        state = ["x", True, None, 0, None]
        lease = [1, 1 << 31, "y" * 200]
        news = [[SERVICES, [[state]]], [TERMINALS, [999999, []]], [EXITED, [77, [0, [1]]]], [KEEP_ASKED, [lease]], [STATUS_ASKED, [5]], [FAILED, [9, 7, "z" * 999]]]
        flood(gateway, [encode(one) for one in news])
    elif how == "much-news":
        state = ["", True, None, 0, None]
        flood(gateway, [encode([SERVICES, [[state] * 10000]])])
    elif how == "strangers-call":
        one, _ = socket.socketpair()
        flood(gateway, [encode([ACCEPTED, [123, None]])], [one.fileno()])
    elif how == "unasked":
        flood(gateway, [encode([SERVICES, [[]]])], kinds("many")[:3])
    elif how == "hello-again":
        flood(gateway, [encode([0, [1, [], [], []]])])
    elif how == "newer":
        # What this gateway does not know yet, also with descriptors; and what it knows, with more to say.
        for _ in range(50):
            say(gateway, [200, [request, "added later"]])
            say(gateway, [7, [1, [9, ["a new kind of address"]]]], kinds("few"))
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        say(gateway, opened[:1] + [opened[1] + ["added later"]], [stdin[1], stdout[0], stderr[0]])
        os.write(stdout[1], b"served\n")
        for one in stdin + stdout + stderr:
            os.close(one)
        say(gateway, [EXITED, [request, [0, [3, "added later"]], "added later"]])
    elif how in ("twice", "flows", "blocks", "never-ends", "exits-alone"):
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        say(gateway, opened, [stdin[1], stdout[0], stderr[0]])
        if how == "twice":
            say(gateway, opened, [stdin[1], stdout[0], stderr[0]])
            say(gateway, [FAILED, [request, 7, "no"]])
            say(gateway, [EXITED, [request, [0, [0]]]])
            say(gateway, [EXITED, [request, [0, [1]]]])
        if how == "flows":
            say(gateway, [EXITED, [request, [0, [0]]]])
        if how in ("flows", "blocks"):
            threading.Thread(target=flow, args=(stdin[0], stdin[1], stdout[1], stdout[0], stderr[0], how == "blocks"), daemon=True).start()
            return
        if how == "exits-alone":
            # And what it said goes on being there.
            say(gateway, [EXITED, [request, [0, [0]]]])
            return
        for one in stdin + stdout + stderr:
            os.close(one)
    else:
        descriptors = kinds(how)
        say(gateway, opened, descriptors)
        for one in descriptors:
            os.close(one)


def flow(stdin, stdin_write, stdout_write, stdout, stderr, blocks):
    """Output for ever; or now and then, with flags that would have a reader wait."""
    until = time.monotonic() + 6
    while time.monotonic() < until:
        if blocks:
            for one in (stdin_write, stdout, stderr):
                os.set_blocking(one, True)
            time.sleep(0.0005)
            # What has made it readable may be gone again when it is read.
            os.write(stdout_write, b"x")
            os.set_blocking(stdout, False)
            try:
                os.read(stdout, 1)
            except BlockingIOError:
                pass
            os.set_blocking(stdout, True)
        else:
            os.write(stdout_write, b"y\n" * 2000)
    for one in (stdin, stdin_write, stdout_write, stdout, stderr):
        os.close(one)


def serve():
    gateway = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gateway.connect("/.innkeeper/socket")
    say(gateway, [0, [9, [], [], [], "added later"] if mode() == "newer" else [1, [], [], []]])
    while True:
        order = gateway.recv(256 * 1024)
        if not order:
            return
        (kind, fields), _ = decode(order)
        if kind == 1:
            on_open(gateway, fields[0])


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    try:
        serve()
    except OSError:
        pass
    time.sleep(0.02)
