"""What is registered: the half of a poller that programs call. The other half is the loop.

Source: gnet `pkg/netpoll/poller_epoll_default.go`.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from netpoll.attachment import Callback, HasFileno, PollAttachment, descriptor_of
from netpoll.backends import Backend, Interest
from netpoll.errors import AlreadyRegistered, NotRegistered


class Registration:
    """What the poller knows of one descriptor; a new one is made by every add and mod."""

    __slots__ = ("attachment", "fired", "interest")

    def __init__(self, attachment: PollAttachment, interest: Interest) -> None:
        self.attachment = attachment
        self.interest = interest
        self.fired = False  # a one-shot that was dispatched: registered, but disarmed


class Registrar:
    """The registrations of a poller, kept so that the kernel's list and the table always agree.

    The table changes first, under `lock`, and is put back when the kernel refuses: an event may
    come before the call returns. A deleted descriptor's callback is replaced by one that does
    nothing until the batch has ended, so that no event meant for it reaches another.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend: Backend = backend
        self.callbacks: MutableMapping[int, Callback] = {}
        self.lock = threading.RLock()
        self.attention = False  # something besides the next wait is to be done

        self._registrations: dict[int, Registration] = {}
        self._deleted: dict[int, None] = {}  # since the last batch ended
        self._batch: Iterator[tuple[int, int]] = iter([])  # what is left of it
        self._called: tuple[object, int, PollAttachment] | None = None
        self._not_dispatched = 0
        self._callback: Callback | None = None  # polling's own; None: each attachment's
        self._closed = False
        self._process = os.getpid()
        self._flags = backend.flags

        try:
            self.wakeup = backend.open_wakeup()
            self.callbacks[self.wakeup.fd] = self._woken
            backend.add(self.wakeup.fd, Interest(read=True, write=False))
        except BaseException:
            backend.close()
            if hasattr(self, "wakeup"):
                self.wakeup.close()
                del self.wakeup
            raise

    def add_read(
        self,
        attachment: PollAttachment,
        edge_triggered: bool = False,
        *,
        oneshot: bool = False,
        exclusive: bool = False,
    ) -> None:
        """Register a descriptor for reading (gnet: `AddRead`).

        `edge_triggered` reports each change once, otherwise every round reports what still holds;
        `oneshot` disarms after one event until a `mod_*`; `exclusive` wakes one of several pollers
        that share the descriptor. Raises `AlreadyRegistered`; ValueError for a closed descriptor or
        `oneshot` with `exclusive`; TypeError for anything but a `PollAttachment`;
        PermissionError for a regular file; OSError for what else the kernel refuses.
        """
        self._add(attachment, Interest(True, False, edge_triggered, oneshot, exclusive))

    def add_write(
        self,
        attachment: PollAttachment,
        edge_triggered: bool = False,
        *,
        oneshot: bool = False,
        exclusive: bool = False,
    ) -> None:
        """Register a descriptor for writing; otherwise like `add_read` (gnet: `AddWrite`)."""
        self._add(attachment, Interest(False, True, edge_triggered, oneshot, exclusive))

    def add_read_write(
        self,
        attachment: PollAttachment,
        edge_triggered: bool = False,
        *,
        oneshot: bool = False,
        exclusive: bool = False,
    ) -> None:
        """Register a descriptor for both; otherwise like `add_read` (gnet: `AddReadWrite`)."""
        self._add(attachment, Interest(True, True, edge_triggered, oneshot, exclusive))

    def mod_read(
        self, attachment: PollAttachment, edge_triggered: bool = False, *, oneshot: bool = False
    ) -> None:
        """Replace a registration by one for reading (gnet: `ModRead`).

        The attachment is replaced too, callback included; a one-shot is armed again. Raises
        `NotRegistered`; ValueError when the descriptor is closed or was added with `exclusive`.
        """
        self._modify(attachment, Interest(True, False, edge_triggered, oneshot))

    def mod_write(
        self, attachment: PollAttachment, edge_triggered: bool = False, *, oneshot: bool = False
    ) -> None:
        """Replace a registration by one for writing; otherwise like `mod_read`."""
        self._modify(attachment, Interest(False, True, edge_triggered, oneshot))

    def mod_read_write(
        self, attachment: PollAttachment, edge_triggered: bool = False, *, oneshot: bool = False
    ) -> None:
        """Replace a registration by one for both; like `mod_read` (gnet: `ModReadWrite`)."""
        self._modify(attachment, Interest(True, True, edge_triggered, oneshot))

    def delete(self, fd: int | HasFileno) -> None:
        """End a registration: from here on its callback is not called again (gnet: `Delete`).

        An event that is in the batch already is dropped. A descriptor closed before is cleaned up.
        Raises `NotRegistered`.
        """
        number = descriptor_of(fd)
        self._check_usable()
        with self.lock:
            self._check_usable()
            registration = self._registrations.get(number)
            if registration is None:
                raise NotRegistered(number)
            try:
                self._forget(number, registration)
                if self.backend.remove(number):
                    self._wait_anew()
            except BaseException as error:
                if not isinstance(error, Exception):  # interrupted, perhaps before the call
                    self._forget(number, registration)
                    with contextlib.suppress(OSError, ValueError):
                        self.backend.remove(number)
                    self._wait_anew()
                raise

    @property
    def attachments(self) -> Mapping[int, PollAttachment]:
        """What is registered: a read-only, live mapping from descriptor to `PollAttachment`."""
        return _Attachments(self._registrations)

    def _add(self, attachment: PollAttachment, interest: Interest) -> None:
        self._check_attachment(attachment)
        if interest.exclusive and interest.oneshot:
            raise ValueError("exclusive and oneshot exclude each other")
        with self.lock:
            self._check_usable()
            fd = attachment.fd
            if fd == self.wakeup.fd:
                raise AlreadyRegistered(fd)
            before = self._registrations.get(fd)
            new = Registration(attachment, interest)
            try:
                self._registrations[fd] = new
                if before is None:
                    self._remember(fd, new)  # first: an event may come before the call returns
                again = self.backend.add(fd, interest)
                if before is not None:  # the number was closed, and stands for another file now
                    self._forget(fd, before)
                    self._remember(fd, new)
                if again:
                    self._wait_anew()
            except BaseException as error:
                interrupted = not isinstance(error, Exception)  # perhaps after the call
                if before is not None and not interrupted:
                    self._registrations[fd] = before
                else:
                    self._forget(fd, new)
                if interrupted:
                    with contextlib.suppress(OSError, ValueError):
                        self.backend.remove(fd)
                    self._wait_anew()
                raise

    def _modify(self, attachment: PollAttachment, interest: Interest) -> None:
        self._check_attachment(attachment)
        with self.lock:
            self._check_usable()
            fd = attachment.fd
            before = self._registrations.get(fd)
            if before is None:
                raise NotRegistered(fd)
            if before.interest.exclusive:
                raise ValueError(f"descriptor {fd} is exclusive: delete it and add it anew")
            try:
                self._keep_called(fd, before.attachment)
                self._remember(fd, Registration(attachment, interest))
                if self.backend.modify(fd, interest):
                    self._wait_anew()
            except NotRegistered:  # closed without delete, and the number stands for another file
                self._forget(fd, before)
                if self.backend.remove(fd):
                    self._wait_anew()
                raise
            except BaseException as error:
                self._remember(fd, before)
                if not isinstance(error, Exception):  # interrupted, perhaps after the call
                    with contextlib.suppress(OSError, ValueError):
                        self.backend.modify(fd, before.interest)
                raise

    def _remember(self, fd: int, registration: Registration) -> None:
        self._registrations[fd] = registration
        if fd in self._deleted and operator.length_hint(self._batch):
            return  # the batch may still hold the old one's event; _settle follows it
        self._deleted.pop(fd, None)
        self.callbacks[fd] = self._callback_of(registration)

    def _forget(self, fd: int, registration: Registration) -> None:
        self._keep_called(fd, registration.attachment)
        self._deleted[fd] = None
        self.callbacks[fd] = self._ignore
        self.attention = True
        self._registrations.pop(fd, None)  # the only call, and last: an interrupt comes after all

    def _dispatched(self) -> int | None:
        """Return the descriptor whose callback is at work; None outside of the dispatch.

        A list's iterator tells the list and its place in it, until it has come to the end.
        """
        reduced: Any = self._batch.__reduce__()
        _, (events, *_), *place = reduced
        return events[place[0] - 1][0] if place and place[0] else None

    def _keep_called(self, fd: int, attachment: PollAttachment) -> None:
        """Keep, for on_error, whom the callback at work was called for, now that it changes."""
        dispatch = self._batch, fd
        if fd == self._dispatched() and (self._called is None or self._called[:2] != dispatch):
            self._called = *dispatch, attachment

    def _settle(self) -> None:
        """After a batch: give deleted descriptors' places free, or to what took their numbers."""
        with self.lock:
            for fd in self._deleted:
                registration = self._registrations.get(fd)
                if registration is None:
                    self.callbacks.pop(fd, None)  # not there when an interrupt ended this before
                else:
                    self.callbacks[fd] = self._callback_of(registration)
            self._deleted.clear()

    def _callback_of(self, registration: Registration) -> Callback:
        callback = self._callback or registration.attachment.callback
        if self._flags is not None:
            callback = _with_flags(callback, self._flags)
        if not registration.interest.oneshot:
            return callback

        def call_once(fd: int, event: int, flags: int) -> None:
            if registration.fired:
                self._not_dispatched += 1
            else:
                registration.fired = True
                callback(fd, event, flags)

        return call_once

    def _ignore(self, fd: int, event: int, flags: int) -> None:
        """Stand in for the callback of a deleted descriptor until the batch has ended."""
        self._not_dispatched += 1

    def _use(self, callback: Callback | None) -> None:
        """Call `callback` for every descriptor from now on; None: each attachment's own."""
        self._callback = callback
        for fd, registration in self._registrations.items():
            if fd not in self._deleted:
                self.callbacks[fd] = self._callback_of(registration)

    def _arm_again(self) -> None:
        """Ask once more for events that are reported once.

        An interrupt can come as the wait returns: the kernel has reported the batch, and nobody
        saw it. MOD makes it look again.
        """
        for fd, registration in self._registrations.items():
            interest = registration.interest
            if interest.edge_triggered or (interest.oneshot and not registration.fired):
                with contextlib.suppress(OSError, ValueError):
                    self.backend.modify(fd, interest)

    def _woken(self, fd: int, event: int, flags: int) -> None:
        """Stand in for the wakeup's callback; who woke the loop has set `attention`."""
        self._not_dispatched += 1
        self.attention = True

    @property
    def _loop_thread(self) -> int:
        """The thread that runs the loop, 0 when none does."""
        raise NotImplementedError

    @property
    def _in_loop(self) -> bool:
        return self._loop_thread == threading.get_ident()

    def _wait_anew(self) -> None:
        """End a wait under way, which does not see what was just done."""
        if self._loop_thread not in (0, threading.get_ident()):
            self.wakeup.wake()

    def _check_usable(self) -> None:
        """Raise when the poller is closed or another process's.

        Called before taking `lock`, which a forked child would wait for in vain if a thread held it
        at the fork, and again with it, since another thread may have closed the poller meanwhile.
        """
        if self._closed:
            raise ValueError("the poller is closed")
        self._check_process()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                f"this poller belongs to process {self._process}: open one of its own in a child"
            )

    def _check_attachment(self, attachment: PollAttachment) -> None:
        if not isinstance(attachment, PollAttachment):
            raise TypeError(f"expected a PollAttachment(fd, callback), not {attachment!r}")
        self._check_usable()


def _with_flags(callback: Callback, flags_of: Mapping[int, int]) -> Callback:
    def call_with_flags(fd: int, event: int, flags: int) -> None:
        callback(fd, event, flags_of.get(fd, 0))

    return call_with_flags


class _Attachments(Mapping[int, PollAttachment]):
    """The attachments of the registrations, by descriptor."""

    def __init__(self, registrations: Mapping[int, Registration]) -> None:
        self._registrations = registrations

    def __getitem__(self, fd: int) -> PollAttachment:
        return self._registrations[fd].attachment

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._registrations))

    def __len__(self) -> int:
        return len(self._registrations)

    def __repr__(self) -> str:
        return repr(dict(self))
