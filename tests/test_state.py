"""`LoopState` and `advance`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.traces import (
    HUP,
    LISTENER,
    RDHUP,
    READ,
    WAKEUP,
    WRITE,
    Script,
    echo_trace,
    random_trace,
)
from tracer.replay import Replay
from tracer.state import LoopState, advance, client_name, initial
from tracer.steps import Accepted, Closed, Read, Registered
from tracer.trace import BaseRegistration, BaseState, BaseTask

BASE = BaseState("epoll", 4, WAKEUP, 128, running=False)


def fold(script: Script) -> LoopState:
    return Replay(script.trace()).state(len(script.steps) - 1)


def accepted(script: Script, fd: int, registered: bool = True, **mode: Any) -> None:
    peer = f"127.0.0.1:{50000 + fd}"
    script.call("on_connection", 3, "Accepted", fd=LISTENER, new_fd=fd, peer=peer)
    if registered:
        script.add("on_connection", 8, fd, peer, "echo", **mode)


def dispatch(script: Script, fd: int, event: int = READ) -> int:
    return script.step("DispatchStarted", None, fd=fd, event=event, flags=0, callback=2)


def statuses(state: LoopState) -> list[tuple[int, str]]:
    return [(entry.fd, entry.status) for entry in state.batch]


def test_base_state_gives_the_wakeup_slot_0() -> None:
    """The wakeup has slot 0, listed or not, and what was registered follows in order."""
    row = BaseRegistration(9, "listener :1", "read", True, False, False, 3)
    own = BaseRegistration(WAKEUP, "eventfd", "read", True, False, False, None)
    for rows in ((row,), (row, own)):
        tasks = (BaseTask("high", 1), BaseTask("low", 2))
        state = initial(BaseState("epoll", 4, WAKEUP, 64, True, rows, tasks))
        assert [(r.slot, r.fd) for r in state.registrations.values()] == [(0, WAKEUP), (1, 9)]
        assert state.registrations[WAKEUP].name == "wakeup"
        assert state.phase == "between"
        assert [len(state.urgent), len(state.low)] == [1, 1]


def test_accepted_but_not_registered_is_seen() -> None:
    """An accepted descriptor has a name and a place before it is registered, and keeps both."""
    script = Script(BASE)
    accepted(script, 7, registered=False)
    state = fold(script)
    known = state.descriptors[7]
    assert (known.name, known.slot, known.registration) == ("client A", 1, None)
    assert 7 not in state.registrations
    script.add("on_connection", 8, 7, "127.0.0.1:50007", "echo")
    assert fold(script).registrations[7].slot == 1


def test_names_after_client_z() -> None:
    """The 27th client is AA, the 53rd BA."""
    assert [client_name(n) for n in (0, 25, 26, 52)] == [
        "client A",
        "client Z",
        "client AA",
        "client BA",
    ]


def test_lowest_free_slot_is_used_again() -> None:
    """A slot that became free goes to the next registration; the others keep theirs."""
    script = Script(BASE)
    for fd in (7, 8, 9):
        accepted(script, fd)
    script.call("goodbye", 1, "Deleted", fd=8)
    script.call("goodbye", 3, "Closed", fd=8)
    accepted(script, 8)
    state = fold(script)
    assert {fd: row.slot for fd, row in state.registrations.items()} == {
        WAKEUP: 0,
        7: 1,
        8: 2,
        9: 3,
    }
    assert state.registrations[8].name == "client D"


def test_deleted_but_open_is_still_seen() -> None:
    """After delete an accepted descriptor keeps its place until it is closed."""
    script = Script(BASE)
    accepted(script, 7)
    script.call("goodbye", 1, "Deleted", fd=7)
    assert fold(script).descriptors[7].slot == 1
    script.call("goodbye", 3, "Closed", fd=7)
    state = fold(script)
    assert state.descriptors[7].slot is None
    assert state.descriptors[7].closed


def test_closed_without_delete_stays_as_closed() -> None:
    """The row of a socket closed without delete says so, and leaves the ready list."""
    script = Script(BASE)
    accepted(script, 7)
    script.wait((7, READ))
    script.call("goodbye", 3, "Closed", fd=7)
    state = fold(script)
    assert state.registrations[7].closed
    assert state.ready == ()


def test_reused_number_is_a_new_row() -> None:
    """A number closed and accepted again is another row until its registration replaces the old."""
    script = Script(BASE)
    accepted(script, 7)
    script.call("echo", 3, "Read", fd=7, count=5)
    script.call("goodbye", 3, "Closed", fd=7)
    accepted(script, 7, registered=False)
    state = fold(script)
    old, new = state.registrations[7], state.descriptors[7]
    assert (old.slot, old.name, old.closed) == (1, "client A", True)
    assert (new.slot, new.name, new.bytes_read) == (2, "client B", 0)
    script.add("on_connection", 8, 7, "127.0.0.1:50007", "echo")
    row = fold(script).registrations[7]
    assert (row.slot, row.name, row.id, row.closed) == (2, "client B", old.id + 1, False)


def test_number_registered_again_starts_anew() -> None:
    """A number that the kernel takes again without an accept is another descriptor."""
    script = Script(BASE)
    accepted(script, 7)
    script.call("echo", 3, "Read", fd=7, count=5)
    for closed in (True, False):  # the close may have been made where nobody looks
        if closed:
            script.call("goodbye", 3, "Closed", fd=7)
        script.add("main", 2, 7, f"pipe {closed}", "echo")
        state = fold(script)
        assert state.registrations[7].name == f"pipe {closed}"
        assert state.descriptors[7].bytes_read == 0
        assert not state.descriptors[7].closed
        assert state.registrations[7].slot == 1


def test_slot_0_stays_the_wakeups() -> None:
    """Nothing else gets slot 0, not even when the poller is closed."""
    script = Script(BASE)
    script.step("PollerClosed")
    accepted(script, 7, registered=False)
    assert fold(script).descriptors[7].slot == 1


def test_failed_calls_change_no_table() -> None:
    """A failed add, modify, delete, read or close is counted, shown, and changes nothing else."""
    script = Script(BASE)
    accepted(script, 7)
    before = fold(script)
    script.add("main", 2, 7, "other", "echo", interest="write", error="AlreadyRegistered")
    script.call("goodbye", 1, "Deleted", fd=7, error="NotRegistered")
    script.call("echo", 3, "Read", fd=7, count=0, error="ConnectionResetError")
    script.call("goodbye", 3, "Closed", fd=7, error="OSError")
    state = fold(script)
    assert state.registrations == before.registrations
    assert state.descriptors == before.descriptors
    assert state.counts.errors == 4
    assert state.error == "OSError"
    script.step("WaitStarted", timeout_ns=0, size=8)
    assert fold(script).error is None


@pytest.mark.parametrize(
    ("mode", "listed", "armed"),
    [
        ({}, True, True),
        ({"edge_triggered": True}, False, True),
        ({"oneshot": True}, False, False),
    ],
)
def test_what_stays_on_the_ready_list(mode: dict[str, bool], listed: bool, armed: bool) -> None:
    """Returned, a level one stays, also after its data was read; edge and one-shot ones leave."""
    script = Script(BASE)
    accepted(script, 7, **mode)
    script.wait((7, READ))
    dispatch(script, 7)
    script.call("echo", 3, "Read", fd=7, count=5)
    state = fold(script)
    assert [entry.fd for entry in state.ready] == ([7] if listed else [])
    assert state.registrations[7].armed is armed
    script.step("WaitStarted", timeout_ns=None, size=128)
    assert fold(script).ready == ()


def test_modified_arms_again_and_forgets_other_events() -> None:
    """Modify re-arms a one-shot; the ready list keeps only events that are still asked for."""
    script = Script(BASE)
    accepted(script, 7, oneshot=True)
    accepted(script, 8)
    script.wait((7, READ), (8, READ | HUP))
    for fd in (7, 8):
        script.add("echo", 5, fd, "x", "echo", interest="write", kind="Modified")
    state = fold(script)
    assert state.registrations[7].armed
    assert [(entry.fd, entry.event) for entry in state.ready] == [(8, HUP)]
    assert state.registrations[8].interest == "write"


def test_batch_is_followed_to_its_end() -> None:
    """Each event is pending, now, then done or dropped; the wakeup's is passed over."""
    script = Script(BASE)
    for fd in (7, 8, 9):
        accepted(script, fd)
    script.wait((7, READ), (WAKEUP, READ), (8, READ), (9, READ))
    started = dispatch(script, 7)
    expected = [(7, "now"), (WAKEUP, "pending"), (8, "pending"), (9, "pending")]
    assert statuses(fold(script)) == expected
    script.step("DispatchEnded", started, fd=7)
    assert fold(script).phase == "dispatching"
    script.step("EventDropped", None, fd=8, event=READ)
    started = dispatch(script, 9)
    expected = [(7, "done"), (WAKEUP, "done"), (8, "dropped"), (9, "now")]
    assert statuses(fold(script)) == expected
    script.step("DispatchEnded", started, fd=9)
    state = fold(script)
    assert (state.phase, state.running, state.counts.dropped) == ("between", None, 1)
    script.step("WaitStarted", timeout_ns=None, size=64)
    state = fold(script)
    assert (state.batch, state.phase, state.size) == ((), "waiting", 64)


def test_wakeup_goes_through_the_kernel() -> None:
    """A wakeup counts up, makes its descriptor ready, and is read back to zero."""
    script = Script(BASE)
    script.step("WaitStarted", timeout_ns=None, size=128)
    queued = script.call(
        "client_cell", 1, "TaskQueued", priority="high", queue="high", callback=4, thread="Main"
    )
    sent = script.step("WakeupSent", queued)
    state = fold(script)
    assert (state.phase, state.wakeup_counter) == ("waiting", 1)
    assert [entry.fd for entry in state.ready] == [WAKEUP]
    script.step("WaitEnded", 1, events=((WAKEUP, READ),))
    script.step("WakeupReceived", sent)
    state = fold(script)
    assert (state.wakeup_counter, statuses(state)) == (0, [(WAKEUP, "done")])
    script.step("WakeupSent", None, error="OSError")
    assert fold(script).wakeup_counter == 0


def test_wakeup_that_was_sent_is_not_forgotten_by_the_next_wait() -> None:
    """A wait that starts with the counter above 0 finds the wakeup ready; one at 0 does not."""
    script = Script(BASE)
    script.step("WakeupSent", None)
    script.step("WaitStarted", timeout_ns=None, size=128)
    assert [entry.fd for entry in fold(script).ready] == [WAKEUP]


def test_tasks_leave_the_queue_they_stand_in() -> None:
    """A task is taken out by its cause; base tasks, without one, oldest first, urgent first."""
    base = BaseState("epoll", 4, WAKEUP, 128, True, (), (BaseTask("low", 0), BaseTask("high", 1)))
    script = Script(base)
    first = script.step("TaskQueued", priority="low", queue="low", callback=4)
    second = script.step("TaskQueued", priority="high", queue="high", callback=4)
    script.step("TaskStarted", second, callback=4)
    state = fold(script)
    assert ([t.seq for t in state.urgent], [t.seq for t in state.low]) == ([None], [None, first])
    assert (state.phase, state.running and state.running.fd) == ("tasks", None)
    script.step("TaskEnded", 3)
    assert fold(script).phase == "tasks"
    script.step("TaskStarted", None, callback=1)
    state = fold(script)
    assert ([t.seq for t in state.urgent], [t.seq for t in state.low]) == ([], [None, first])


def test_site_is_the_last_call_in_what_runs() -> None:
    """The marked line follows the calls of the running callback, not those of other threads."""
    script = Script(BASE)
    script.add("main", 2, LISTENER, "listener", "on_connection")
    state = fold(script)
    assert state.site is not None
    assert state.site.function == script.ids["main"]
    script.wait((LISTENER, READ))
    started = dispatch(script, LISTENER)
    assert fold(script).site is None
    script.call("echo", 3, "Read", fd=LISTENER, count=1)
    script.call("client_cell", 1, "TaskQueued", priority="low", queue="low", callback=4, thread="M")
    state = fold(script)
    assert state.site is not None
    assert (state.site.function, state.site.line) == (script.ids["echo"], 53)
    script.step("DispatchEnded", started, fd=LISTENER)
    state = fold(script)
    assert state.site is not None
    assert state.finished is not None


def test_closing_the_poller_empties_the_kernel() -> None:
    """After PollerClosed nothing is registered, ready or queued; open clients are still open."""
    script = Script(BASE)
    accepted(script, 7)
    script.wait((7, READ | RDHUP))
    script.step("WakeupSent", None)
    script.step("PollerClosed")
    state = fold(script)
    assert (state.phase, state.closed, state.registrations) == ("outside", True, {})
    assert (state.ready, state.batch, state.wakeup_counter) == ((), (), 0)
    assert state.descriptors[7].slot == 1


def test_advance_changes_nothing_it_was_given() -> None:
    """`advance` is pure: an old state stays as it was."""
    trace = echo_trace()
    states = [initial(trace.base)]
    dumps = [json.dumps(states[0].to_json())]
    for step in trace:
        states.append(advance(states[-1], step))
        dumps.append(json.dumps(states[-1].to_json()))
    assert [json.dumps(state.to_json()) for state in states] == dumps


@pytest.mark.parametrize("seed", range(30))
def test_no_state_is_impossible(seed: int) -> None:
    """On random traces of a possible loop, every state keeps what a kernel guarantees."""
    trace = random_trace(seed)
    replay = Replay(trace)
    for index, step in enumerate(trace):
        state = replay.state(index)
        rows = list(state.registrations.values())
        loose = [
            d for d in state.descriptors.values() if d.registration is None and d.slot is not None
        ]
        slots = [row.slot for row in rows] + [d.slot for d in loose]
        assert len(set(slots)) == len(slots), step
        for entry in state.ready:
            row = state.registrations[entry.fd]
            assert row.armed, step
            assert not row.closed, step
            assert entry.event, step
        assert sum(entry.status == "now" for entry in state.batch) <= 1, step
        assert len(state.batch) <= 128
        assert (state.running is not None) == _running(trace, index), step
        assert state.wakeup_counter in (0, 1), step
        if state.phase == "waiting":
            assert not state.batch, step
            assert {entry.fd for entry in state.ready} <= {state.wakeup_fd}, step
        if isinstance(step, (Registered, Accepted, Read, Closed)) and step.error is None:
            assert step.fd in state.descriptors, step


def _running(trace: Any, index: int) -> bool:
    for step in reversed(trace[: index + 1]):
        if step.kind in ("DispatchStarted", "TaskStarted"):
            return True
        if step.kind in ("DispatchEnded", "TaskEnded", "WaitStarted"):
            return False
    return False


def test_write_interest_is_kept() -> None:
    """The interest of a registration is what its step said."""
    script = Script(BASE)
    accepted(script, 7, interest="read write")
    script.wait((7, WRITE))
    assert fold(script).registrations[7].interest == "read write"
