"""netpoll: an event poller. Register descriptors, wait for the kernel, dispatch callbacks.

A Python port of `pkg/netpoll` of gnet v2.7.0, complete and with the standard library alone::

    poller = netpoll.open_poller()
    poller.add_read(netpoll.PollAttachment(listener, accept))
    poller.polling()
"""

from netpoll import sockets
from netpoll.attachment import Callback, PollAttachment
from netpoll.background import LoopThread, run_in_thread
from netpoll.errors import AcceptSocketError, AlreadyRegistered, EngineShutdown, NotRegistered
from netpoll.events import (
    ERROR_EVENTS,
    READ_EVENTS,
    READ_WRITE_EVENTS,
    WRITE_EVENTS,
    IOEvent,
    IOFlags,
    is_error_event,
    is_read_event,
    is_write_event,
)
from netpoll.poller import Poller, open_poller
from netpoll.queue import AsyncTaskQueue, EventPriority, Task, Timer

__version__ = "0.1.0"

__all__ = [
    "ERROR_EVENTS",
    "READ_EVENTS",
    "READ_WRITE_EVENTS",
    "WRITE_EVENTS",
    "AcceptSocketError",
    "AlreadyRegistered",
    "AsyncTaskQueue",
    "Callback",
    "EngineShutdown",
    "EventPriority",
    "IOEvent",
    "IOFlags",
    "LoopThread",
    "NotRegistered",
    "PollAttachment",
    "Poller",
    "Task",
    "Timer",
    "is_error_event",
    "is_read_event",
    "is_write_event",
    "open_poller",
    "run_in_thread",
    "sockets",
]
