"""A server whose clients come and go."""

import socket

from netpoll import PollAttachment, Poller


def bug(poller: Poller) -> list[socket.socket]:
    """Delete who has left, and keep the socket: one descriptor less for each client."""
    connections: dict[int, socket.socket] = {}

    def accept(fd: int, event: int, flags: int) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        connections[connection.fileno()] = connection
        poller.add_read(PollAttachment(connection, serve))

    def serve(fd: int, event: int, flags: int) -> None:
        if not connections[fd].recv(64):
            poller.delete(fd)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        poller.add_read(PollAttachment(listener, accept))
        for _ in range(3):
            with socket.create_connection(listener.getsockname()):
                poller.poll_once(5)
            poller.poll_once(5)
        poller.delete(listener)
    return list(connections.values())


def mended(poller: Poller) -> None:
    """Delete and close."""
    connections: dict[int, socket.socket] = {}

    def accept(fd: int, event: int, flags: int) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        connections[connection.fileno()] = connection
        poller.add_read(PollAttachment(connection, serve))

    def serve(fd: int, event: int, flags: int) -> None:
        if not connections[fd].recv(64):
            poller.delete(fd)
            connections.pop(fd).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        poller.add_read(PollAttachment(listener, accept))
        for _ in range(3):
            with socket.create_connection(listener.getsockname()):
                poller.poll_once(5)
            poller.poll_once(5)
        poller.delete(listener)
