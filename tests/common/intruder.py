"""What somebody in a container tries on the gateway and on init. The first argument says what, the second for how many seconds."""

import array
import ctypes
import errno
import os
import signal
import socket
import struct
import sys
import threading
import time

what, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0
until = time.monotonic() + seconds
kept = []


def send_lingering(connection):
    """Sends a connection that whoever closes it last waits for, for an hour. A process that has ended waits for nothing: it is not us."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        if os.fork() == 0:
            near = socket.create_connection(listener.getsockname())
            near.setblocking(False)
            try:
                while True:
                    near.send(bytes(1 << 16))
            except BlockingIOError:
                pass
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            try:
                socket.send_fds(connection, [b"x"], [near.fileno()])
            finally:
                # Whether it was sent, or whoever was dialled had hung up already.
                os._exit(0)
        kept.append(listener.accept()[0])
        os.wait()


def dial(address, kind=socket.SOCK_SEQPACKET):
    connection = socket.socket(socket.AF_UNIX, kind)
    connection.connect(address)
    return connection


def flood(address):
    """Dials without end: garbage, lies, descriptors, silence."""
    number = 0
    while time.monotonic() < until:
        number += 1
        try:
            with dial(address) as connection:
                connection.setblocking(False)
                if number % 4 == 0:
                    connection.send(b"\x82\x00\x84\x01\x80\x80\x80")
                elif number % 4 == 1:
                    connection.send(os.urandom(2000))
                elif number % 4 == 2:
                    socket.send_fds(connection, [b"x"], [0, 1, 2] * 60)
        except OSError:
            pass


def flood_by_many(address):
    if not all(os.fork() for _ in range(8)):
        threads = [threading.Thread(target=flood, args=(address,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    for _ in range(8):
        os.wait()


def trap():
    """Everybody who connects is sent what nobody wants to close."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("trap")
    listener.listen(16)
    print("up", flush=True)
    while True:
        connection, _ = listener.accept()
        # Read at once; and left in the queue of one that is not read any more.
        for _ in range(3):
            send_lingering(connection)
        kept.append(connection)


def under_way():
    """Sends descriptors to herself, and takes none, until the kernel allows her no more."""
    while True:
        pair = socket.socketpair()
        for end in pair:
            end.setblocking(False)
        kept.append(pair)
        try:
            while True:
                socket.send_fds(pair[0], [b"x"], [0] * 250)
        except BlockingIOError:
            pass
        except OSError as why:
            if why.errno != errno.ETOOMANYREFS:
                raise
            print("up", flush=True)
            time.sleep(seconds)
            return


def at_init():
    """What can be had of the first process: nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    tried = {}
    for name in ("mem", "environ", "maps", "auxv"):
        try:
            with open(f"/proc/1/{name}", "rb") as file:
                tried[name] = len(file.read(1))
        except OSError:
            pass
    for name in ("fd", "task/1/fd", "map_files"):
        try:
            tried[name] = len(os.listdir(f"/proc/1/{name}"))
        except OSError:
            pass
    for name in ("exe", "cwd", "root", "ns/net"):
        try:
            tried[name] = os.readlink(f"/proc/1/{name}")
        except OSError:
            pass
    for name, request in (("attach", 16), ("seize", 0x4206)):
        if libc.ptrace(request, 1, 0, 0) == 0:
            tried[name] = True
    handle = os.pidfd_open(1)
    if any(libc.syscall(438, handle, number, 0) >= 0 for number in range(32)):
        tried["pidfd_getfd"] = True
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 8)
    far = struct.pack("QQ", 0x400000, 8)
    if libc.process_vm_readv(1, vector, 1, far, 1, 0) > 0:
        tried["process_vm_readv"] = True
    for number in set(signal.valid_signals()) - {signal.SIGTERM}:
        os.kill(1, number)
    print(tried)


match what:
    case "dial":
        with dial("/.innkeeper/socket") as connection:
            try:
                connection.send(b"\x82\x00\x84\x01\x80\x80\x80")
                answer = connection.recv(100)
            except OSError:
                answer = b""
            print("let in" if answer else "hung up on")
    case "flood-gateway":
        flood_by_many("/.innkeeper/socket")
    case "flood-init":
        flood_by_many("\0innkeeper")
    case "linger-gateway":
        for _ in range(16):
            with dial("/.innkeeper/socket") as connection:
                send_lingering(connection)
        print("up", flush=True)
        time.sleep(seconds)
    case "linger-init":
        for _ in range(16):
            with dial("\0innkeeper") as connection:
                send_lingering(connection)
        print("up", flush=True)
        time.sleep(seconds)
    case "under-way":
        under_way()
    case "trap":
        trap()
    case "at-init":
        at_init()
    case "hog":
        while True:
            kept.append(bytearray(os.urandom(1 << 20) * 4))
