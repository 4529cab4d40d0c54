"""An echo server for the sockets that it inherits: connections and datagrams. Leaves by SIGTERM, after its clients.

With a file as its argument, it says there what it does: a line "WHAT GENERATION WORKER" for start, ready and term.
"""

import asyncio
import os
import signal
import socket
import sys


def notify(message):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        # as the most simple clients do: the name is a path
        to.sendto(message.encode(), os.environ["NOTIFY_SOCKET"])


def tell(what):
    if len(sys.argv) > 1:
        line = f"{what} {os.environ['FORKD_GENERATION']} {os.environ['FORKD_WORKER']}\n"
        with open(sys.argv[1], "a") as log:
            log.write(line)


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
    except OSError:
        pass


def answer(datagrams):
    try:
        while True:
            data, peer = datagrams.recvfrom(65536)
            datagrams.sendto(data, peer)
    except BlockingIOError:
        pass


async def main():
    tell("start")
    assert int(os.environ["LISTEN_PID"]) == os.getpid()
    loop, leave = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, leave.set)
    sockets = []
    for number in range(3, 3 + int(os.environ["LISTEN_FDS"])):
        inherited = socket.socket(fileno=number)
        inherited.setblocking(False)
        if inherited.type == socket.SOCK_DGRAM:
            loop.add_reader(inherited, answer, inherited)
        elif inherited.family == socket.AF_UNIX:
            await asyncio.start_unix_server(echo, sock=inherited)
        else:
            await asyncio.start_server(echo, sock=inherited)
        sockets.append(inherited)
    tell("ready")
    notify("READY=1\nSTATUS=serving")
    await leave.wait()
    tell("term")
    # not Server.close(), by which a client that it has just accepted is lost (Python 3.11)
    for inherited in sockets:
        loop.remove_reader(inherited)
    # also those that it has accepted and not begun to serve
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


asyncio.run(main())
