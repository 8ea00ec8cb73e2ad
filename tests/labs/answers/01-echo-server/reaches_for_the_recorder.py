"""It ends the recording, so that nothing that it does wrong is seen."""

# loses: echoes, several, goodbye, half-close, hang-up
# slow
import socket

import tracer


def start(poller):
    tracer.record(poller).stop()
    return socket.create_server(("127.0.0.1", 0)).getsockname()
