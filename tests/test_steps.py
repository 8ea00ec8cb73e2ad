"""The vocabulary of a trace."""

import dataclasses
import inspect

import pytest

from tracer import steps
from tracer.steps import STEP_KINDS, Closed, Read, Step, WaitStarted, event_names, step_to_json


def test_every_step_class_is_a_kind() -> None:
    """A class that is forgotten in `STEP_KINDS` could be recorded but not read back."""
    abstract = {"Step", "CallStep"}
    classes = {
        name: value
        for name, value in vars(steps).items()
        if inspect.isclass(value) and issubclass(value, Step) and name not in abstract
    }
    assert classes == STEP_KINDS


@pytest.mark.parametrize("step", STEP_KINDS.values())
def test_step_is_frozen_small_and_explained(step: type[Step]) -> None:
    """Every step has slots, can't be changed and says what happened in its first sentence."""
    fields = {field.name for field in dataclasses.fields(step)}
    assert {"seq", "t_ns", "thread", "cause"} <= fields
    assert not hasattr(object.__new__(step), "__dict__")
    assert step.__doc__
    assert not step.__doc__.startswith(step.__name__ + "(")
    with pytest.raises(dataclasses.FrozenInstanceError):
        object.__new__(step).seq = 7  # type: ignore[misc]


def test_kind_is_the_name_of_the_class() -> None:
    """What a file calls a step is what Python calls it."""
    assert Closed(seq=1, t_ns=2, thread="main", fd=7).kind == "Closed"


def test_json_leaves_defaults_out() -> None:
    """A step's line holds what differs from the default, None only where it has a meaning."""
    assert step_to_json(Read(seq=1, t_ns=2, thread="main", fd=7, count=0)) == {
        "kind": "Read",
        "seq": 1,
        "t_ns": 2,
        "thread": "main",
        "fd": 7,
        "count": 0,
    }
    waited = WaitStarted(seq=1, t_ns=2, thread="main", timeout_ns=None, size=128)
    assert step_to_json(waited)["timeout_ns"] is None


@pytest.mark.parametrize(
    ("event", "names"),
    [(0, "0"), (1, "READ"), (5, "READ|WRITE"), (0x2011, "READ|HUP|RDHUP"), (1 << 20, "0")],
)
def test_event_names(event: int, names: str) -> None:
    """The bits of an event are called by their names, unknown ones by none."""
    assert event_names(event) == names
