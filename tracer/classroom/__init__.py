"""tracer.classroom: runs a student's server in a process of its own, and looks at it from outside.

::

    with classroom.serving("echo_server.py") as server:
        client = server.connect()
        client.send(b"hello")
        client.expect(b"hello")
    tracer.expect(server.trace).every_accepted_descriptor_is_closed()

The labs in notebooks/labs are graded with it. A server that is wrong, hangs, crashes or cheats
makes `Wrong`, with a sentence that says what to look at; whoever asks goes on.
"""

from tracer.classroom.clients import Client
from tracer.classroom.processes import Answer, call
from tracer.classroom.servers import Server, serving
from tracer.classroom.wrong import Wrong

__all__ = ["Answer", "Client", "Server", "Wrong", "call", "serving"]
