"""The worlds as fixtures. A test that leaves a descriptor open, or hangs, fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from netpoll import Poller
from tests.conformance.worlds import PATIENCE, REAL, SIMULATED, World


@pytest.fixture
def watchdog() -> Iterator[None]:
    """End a test that hangs, by an exception that gets out of every loop."""

    def give_up(number: int, frame: FrameType | None) -> None:
        pytest.fail("the test hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=[*REAL, *SIMULATED])
def world(request: pytest.FixtureRequest, watchdog: None) -> Iterator[World]:
    world: World = request.param()
    before = world.open_descriptors()
    yield world
    world.end()
    assert world.open_descriptors() == before


@pytest.fixture
def poller(world: World) -> Poller:
    return world.open_poller()
