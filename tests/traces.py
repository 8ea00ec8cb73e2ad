"""Traces for tests: one as a small echo server leaves it, and random ones a kernel could make."""

from __future__ import annotations

import random
from typing import Any

from tracer.steps import STEP_KINDS, Function, Step
from tracer.trace import BaseRegistration, BaseState, BaseTask, BaseTimer, Trace

READ, WRITE, ERR, HUP, RDHUP = 1, 4, 8, 16, 0x2000

EPOLL, WAKEUP, LISTENER = 4, 5, 6

SOURCES = {
    "main": """\
def main():
    listener = netpoll.sockets.listen(":9090")
    poller.add_read(PollAttachment(listener, on_connection))
    poller.polling()
""",
    "on_connection": """\
def on_connection(fd, event, flags):
    while True:
        try:
            conn, peer = listener.accept()
        except BlockingIOError:
            return                      # everybody who knocked is in
        conn.setblocking(False)
        connections[conn.fileno()] = conn
        poller.add_read(PollAttachment(conn, echo))
""",
    "echo": """\
def echo(fd, event, flags):
    conn = connections[fd]
    try:
        data = conn.recv(64)
    except ConnectionResetError:
        return goodbye(conn)
    if not data:
        return goodbye(conn)
    conn.send(data)
""",
    "goodbye": """\
def goodbye(conn):
    poller.delete(conn.fileno())
    del connections[conn.fileno()]
    conn.close()
""",
    "log_stats": """\
def log_stats(param):
    print(len(connections), "connections")
""",
    "client_cell": """\
def client_cell():
    poller.trigger(EventPriority.HIGH, log_stats)
""",
}


class Script:
    """Writes steps one after the other, with times, and makes a `Trace` of them."""

    def __init__(self, base: BaseState, sources: dict[str, str] | None = None) -> None:
        self.base = base
        self.functions: dict[int, Function] = {}
        self.ids: dict[str, int] = {}
        self.steps: list[Step] = []
        self.t_ns = 1_000_000_000_000
        self.thread = "netpoll loop"
        for name, text in (SOURCES if sources is None else sources).items():
            number = len(self.functions)
            self.ids[name] = number
            self.functions[number] = Function(number, name, "server.py", 10 + 20 * number, text)

    def step(self, kind: str, cause: int | None = None, after: int = 3_000, **fields: Any) -> int:
        """Append a step, `after` nanoseconds from the last one, and return its seq."""
        self.t_ns += after
        seq = len(self.steps) + 1
        fields.setdefault("thread", self.thread)
        self.steps.append(STEP_KINDS[kind](seq=seq, t_ns=self.t_ns, cause=cause, **fields))
        return seq

    def call(self, function: str, line: int, kind: str, **fields: Any) -> int:
        """Append a step of a call at `line` (from 0) of `function`."""
        number = self.ids[function]
        at = self.functions[number].first_line + line
        return self.step(kind, function=number, line=at, **fields)

    def add(self, function: str, line: int, fd: int, who: str, callback: str, **more: Any) -> int:
        """Append a Registered for read interest, unless `more` says otherwise."""
        values: dict[str, Any] = {
            "interest": "read",
            "edge_triggered": False,
            "oneshot": False,
            "exclusive": False,
        }
        number = self.ids[callback]
        values |= {"fd": fd, "who": who, "callback": number} | more
        return self.call(function, line, values.pop("kind", "Registered"), **values)

    def wait(self, *events: tuple[int, int], slept: int = 800_000) -> int:
        """Append a wait and what it returned; return the seq of the WaitEnded."""
        cause = self.step("WaitStarted", timeout_ns=None, size=128)
        return self.step("WaitEnded", cause, slept, events=tuple(events))

    def trace(self) -> Trace:
        """Return what was written."""
        return Trace(self.base, self.functions, self.steps)


def echo_trace(echoes: int = 3) -> Trace:
    """Return a recorded echo server with a chatty, a silent and a vanishing client."""
    base = BaseState("epoll", EPOLL, WAKEUP, 128, running=False)
    script = Script(base)
    accepted = _accepted(script)
    with_thread = script.thread

    script.thread = "MainThread"
    script.add("main", 2, LISTENER, "listener :9090", "on_connection")
    script.add("main", 2, LISTENER, "listener :9090", "on_connection", error="AlreadyRegistered: 6")
    script.thread = with_thread

    accepted([(7, "127.0.0.1:51234")])
    for number in range(echoes):
        ended = script.wait((7, READ))
        _echo(script, ended, 7, 5 + number)
    accepted([(8, "127.0.0.1:51236"), (9, "127.0.0.1:51240")])

    ended = script.wait((7, READ), (9, READ))
    _echo(script, ended, 7, 12)
    _echo(script, ended, 9, 4)

    script.step("WaitStarted", timeout_ns=None, size=128)
    waiting = len(script.steps)
    script.thread = "MainThread"
    queued = script.call(
        "client_cell",
        1,
        "TaskQueued",
        priority="high",
        queue="high",
        callback=script.ids["log_stats"],
        after=400_000,
    )
    sent = script.step("WakeupSent", queued)
    script.thread = with_thread
    script.step("WaitEnded", waiting, events=((WAKEUP, READ),))
    script.step("WakeupReceived", sent)
    started = script.step("TaskStarted", queued, callback=script.ids["log_stats"])
    script.step("TaskEnded", started, 40_000)

    ended = script.wait((9, READ | RDHUP | HUP | ERR), (7, READ))
    started = _dispatch(script, ended, 9, READ | RDHUP | HUP | ERR, "echo")
    script.call("echo", 3, "Read", fd=9, count=0, error="ConnectionResetError: [Errno 104]")
    script.call("goodbye", 1, "Deleted", fd=9, cause=started)
    script.call("goodbye", 3, "Closed", fd=9)
    script.step("DispatchEnded", started, fd=9)
    _echo(script, ended, 7, 3)

    ended = script.wait((7, READ | RDHUP))
    started = _dispatch(script, ended, 7, READ | RDHUP, "echo")
    script.call("echo", 3, "Read", fd=7, count=0)
    script.call("goodbye", 1, "Deleted", fd=7, cause=started)
    script.call("goodbye", 3, "Closed", fd=7)
    script.step("DispatchEnded", started, fd=7)
    script.step("WaitStarted", timeout_ns=None, size=128)
    return script.trace()


def _dispatch(script: Script, ended: int, fd: int, event: int, callback: str) -> int:
    number = script.ids[callback]
    return script.step("DispatchStarted", ended, fd=fd, event=event, flags=0, callback=number)


def _accepted(script: Script) -> Any:
    def accept(clients: list[tuple[int, str]]) -> None:
        ended = script.wait((LISTENER, READ))
        started = _dispatch(script, ended, LISTENER, READ, "on_connection")
        for fd, peer in clients:
            script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=fd, peer=peer)
            script.add("on_connection", 8, fd, peer, "echo", cause=started)
        script.call("on_connection", 3, "WouldBlock", fd=LISTENER, call="accept")
        script.step("DispatchEnded", started, fd=LISTENER)

    return accept


def _echo(script: Script, ended: int, fd: int, size: int) -> None:
    started = _dispatch(script, ended, fd, READ, "echo")
    script.call("echo", 3, "Read", fd=fd, count=size)
    script.call("echo", 8, "Wrote", fd=fd, count=size, asked=size)
    script.step("DispatchEnded", started, fd=fd)


HOSTILE = "<script>alert(1)</script>]]>\"'\\N{a|b}&amp;\u202e\n" + "x" * 10_000
"""A name that would break out of HTML, SVG or DOT if it were not escaped, and is 10 kB long."""


def hostile_trace() -> Trace:
    """Return a short trace in which everything that can carry a name carries `HOSTILE`."""
    base = BaseState(
        HOSTILE,
        EPOLL,
        WAKEUP,
        128,
        running=True,
        registrations=(BaseRegistration(6, HOSTILE, HOSTILE, False, False, False, 0),),
        tasks=(BaseTask("high", 0), BaseTask("low", 0)),
    )
    script = Script(base, {HOSTILE: HOSTILE + "\n" + HOSTILE})
    script.thread = HOSTILE
    ended = script.wait((6, READ))
    _dispatch(script, ended, 6, READ, HOSTILE)
    script.call(HOSTILE, 0, "Accepted", fd=6, new_fd=7, peer=HOSTILE)
    script.add(HOSTILE, 1, 7, HOSTILE, HOSTILE)
    script.add(HOSTILE, 1, 7, HOSTILE, HOSTILE, error=HOSTILE)
    script.call(HOSTILE, 1, "WouldBlock", fd=7, call=HOSTILE)
    script.call(HOSTILE, 0, "TaskQueued", priority=HOSTILE, queue="low", callback=0, error=None)
    script.call(HOSTILE, 0, "TimerSet", callback=0, delay_ns=5, error=HOSTILE)
    script.call(HOSTILE, 0, "TimerCanceled", callback=0, timer=None, error=HOSTILE)
    script.call(HOSTILE, 0, "PollerOpened", backend=HOSTILE, fd=9, wakeup_fd=10, error=HOSTILE)
    return script.trace()


def random_trace(seed: int, rounds: int = 40, most_clients: int = 20) -> Trace:
    """Return a random trace that a real kernel and a correct loop could have made."""
    return _RandomLoop(seed, most_clients).run(rounds)


class _RandomLoop:
    """A server with random clients: keeps what is open, watched and queued, and writes steps."""

    def __init__(self, seed: int, most_clients: int) -> None:
        self.random = random.Random(seed)
        pick = self.random
        tasks = tuple(BaseTask(pick.choice(["high", "low"]), 4) for _ in range(pick.randrange(3)))
        self.watched: dict[int, dict[str, Any]] = {}
        self.open: set[int] = {LISTENER}
        rows = [BaseRegistration(LISTENER, "listener :80", "read", False, False, False, 1)]
        for fd in range(LISTENER + 1, LISTENER + 1 + pick.randrange(3)):
            rows.append(BaseRegistration(fd, f"10.0.0.1:{fd}", "read", True, False, False, 2))
            self.open.add(fd)
        for row in rows:
            self.watched[row.fd] = {"edge": row.edge_triggered, "oneshot": False}
            self.watched[row.fd] |= {"armed": True, "live": True}
        due = [10**12 + pick.randrange(10**7) for _ in range(pick.randrange(3))]
        timers = tuple(BaseTimer(due_ns, 4) for due_ns in due)
        self.base = BaseState("epoll", EPOLL, WAKEUP, 128, True, tuple(rows), tasks, timers)
        self.timers: list[tuple[int, int | None]] = [(timer.due_ns, None) for timer in timers]
        self.queues: dict[str, list[int | None]] = {"high": [], "low": []}
        for task in tasks:
            self.queues[task.queue].append(None)
        self.script = Script(self.base)
        self.most_clients = most_clients
        self.counter = 0
        self.sent: int | None = None

    def run(self, rounds: int) -> Trace:
        for _ in range(rounds):
            self.round()
        if self.random.random() < 0.5:
            self.script.step("PollerClosed")
        return self.script.trace()

    def round(self) -> None:
        script, pick = self.script, self.random
        timeout = pick.choice([None, None, 0, 50_000_000])
        started = script.step("WaitStarted", timeout_ns=timeout, size=128)
        while pick.random() < 0.4 or (timeout is None and not self.ready() and not self.counter):
            self.trigger("MainThread")
        ready = self.ready()
        batch = pick.sample(ready, pick.randrange(len(ready) + 1)) if ready else []
        events = [(fd, pick.choice([READ, READ, READ | RDHUP, WRITE, READ | HUP])) for fd in batch]
        if self.counter:
            events.insert(pick.randrange(len(events) + 1), (WAKEUP, READ))
        ended = script.step("WaitEnded", started, pick.randrange(10**7), events=tuple(events))
        then = {fd: self.watched[fd] for fd, _ in events if fd != WAKEUP}
        for row in then.values():
            row["armed"] = not row["oneshot"]
        for fd, event in events:
            if fd == WAKEUP:
                continue
            if self.watched.get(fd) is not then[fd]:
                script.step("EventDropped", ended, fd=fd, event=event)
                continue
            self.dispatch(ended, fd, event)
        if pick.random() < 0.05:
            script.step("ListRebuilt")
            for row in self.watched.values():
                row["armed"] = True
        if pick.random() < 0.1:
            script.step("ListChecked", count=len(self.watched), error=pick.choice([None, "x"]))
        if len(events) > 3:
            script.step("BatchResized", ended, size=pick.choice([64, 256]))
        if self.counter:
            script.step("WakeupReceived", self.sent)
            self.counter = 0
        for due, timer in sorted(self.timers, key=lambda entry: entry[0]):
            if due <= script.t_ns:
                self.timers.remove((due, timer))
                late, callback = script.t_ns + 3_000 - due, script.ids["log_stats"]
                fired = script.step("TimerFired", timer, late_ns=late, callback=callback)
                script.step("TaskEnded", script.step("TaskStarted", fired, callback=callback))
        for name, queue in self.queues.items():
            for _ in range(pick.randrange(len(queue) + 1)):
                self.task(name)

    def ready(self) -> list[int]:
        return [fd for fd, row in self.watched.items() if row["armed"] and row["live"]]

    def dispatch(self, ended: int, fd: int, event: int) -> None:
        script, pick = self.script, self.random
        callback = script.ids["on_connection" if fd == LISTENER else "echo"]
        started = script.step(
            "DispatchStarted", ended, fd=fd, event=event, flags=0, callback=callback
        )
        for _ in range(pick.randrange(4)):
            self.act(fd, started)
        if pick.random() < 0.1:
            seen: dict[str, Any] = {
                "unread": pick.choice([None, 0, 1]),
                "unsent": pick.choice([3, 4000]),
            }
            script.step("BuffersSeen", started, fd=fd, **seen)
        error = "ValueError: x" if pick.random() < 0.1 else None
        script.step("DispatchEnded", started, fd=fd, error=error)

    def act(self, fd: int, started: int) -> None:
        script, pick = self.script, self.random
        other = pick.choice(sorted(self.open))
        choice = pick.randrange(11)
        if choice == 0 and len(self.open) < self.most_clients:
            new = next(n for n in range(LISTENER, 10**4) if n not in self.open)
            self.open.add(new)
            peer = f"127.0.0.1:{50000 + len(script.steps)}"
            script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=new, peer=peer)
            if pick.random() < 0.8:
                self.register(new)
        elif choice in (1, 2, 4) and other == LISTENER:
            script.call("on_connection", 3, "WouldBlock", fd=other, call="accept")
        elif choice == 1:
            script.call("echo", 3, "Read", fd=other, count=pick.choice([0, 1, 64, 5000]))
        elif choice == 2:
            script.call("echo", 8, "Wrote", fd=other, count=pick.randrange(64), asked=64)
        elif choice == 3:
            script.call("echo", 3, "WouldBlock", fd=other, call="recv")
        elif choice == 4:
            script.call("echo", 3, "Read", fd=other, count=0, error="ConnectionResetError: 104")
        elif choice == 5:
            self.register(other)
        elif choice == 6 and other in self.watched and self.watched[other]["live"]:
            if pick.random() < 0.5:
                del self.watched[other]
                script.call("goodbye", 1, "Deleted", fd=other)
            else:
                self.register(other, "Modified")
        elif choice == 7 and other != LISTENER:
            self.open.discard(other)
            if other in self.watched:
                self.watched[other]["live"] = False  # the kernel drops what is closed
            script.call("goodbye", 3, "Closed", fd=other)
            if pick.random() < 0.5 and other in self.watched:
                del self.watched[other]
                script.call("goodbye", 1, "Deleted", fd=other)
        elif choice == 8:
            self.trigger(script.thread)
        elif choice == 9:
            delay = pick.choice([0, 10**6, 10**7])
            callback = script.ids["log_stats"]
            timer = script.call("echo", 2, "TimerSet", callback=callback, delay_ns=delay)
            self.timers.append((script.t_ns + delay, timer))
        elif choice == 10 and self.timers:
            _, canceled = self.timers.pop(pick.randrange(len(self.timers)))
            callback = script.ids["log_stats"]
            script.call("echo", 3, "TimerCanceled", callback=callback, timer=canceled)

    def register(self, fd: int, kind: str = "Registered") -> None:
        script, pick = self.script, self.random
        edge, oneshot = pick.random() < 0.4, pick.random() < 0.2
        who = f"127.0.0.1:{40000 + fd}"
        values: dict[str, Any] = {
            "interest": pick.choice(["read", "write", "read write"]),
            "edge_triggered": edge,
            "oneshot": oneshot,
            "error": None,
        }
        if kind == "Registered" and fd in self.watched and self.watched[fd]["live"]:
            values["error"] = "AlreadyRegistered: 17"
        else:
            self.watched[fd] = {"edge": edge, "oneshot": oneshot}
            self.watched[fd] |= {"armed": True, "live": True}
        values |= {"fd": fd, "who": who, "exclusive": False, "callback": script.ids["echo"]}
        script.call("echo", 5, kind, **values)

    def trigger(self, thread: str) -> None:
        script, pick = self.script, self.random
        own, script.thread = script.thread, thread
        queue = pick.choice(["high", "low"])
        seq = script.call(
            "client_cell",
            1,
            "TaskQueued",
            priority=pick.choice(["low", queue]),
            queue=queue,
            callback=script.ids["log_stats"],
        )
        self.queues[queue].append(seq)
        if not self.counter:
            self.sent = script.step("WakeupSent", seq)
            self.counter = 1
        script.thread = own

    def task(self, name: str) -> None:
        script, pick = self.script, self.random
        # A base task has no seq: the oldest one of the high, then of the low queue is meant.
        for queue in (name, "high", "low"):
            if None in self.queues[queue] and self.queues[queue][0] is None:
                name = "high" if None in self.queues["high"] else queue
                break
        cause = self.queues[name].pop(0)
        started = script.step("TaskStarted", cause, callback=script.ids["log_stats"])
        if pick.random() < 0.3:
            self.act(LISTENER, started)
        error = "ValueError: y" if pick.random() < 0.1 else None
        script.step("TaskEnded", started, error=error)
