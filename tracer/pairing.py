"""`pair(a, b)`: which moments of two runs belong side by side, for the player that shows both.

A position counts the steps that have happened, from 0 to the length of the trace. A moment is a
pair of positions; from moment to moment one run or both go on, and none ever goes back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tracer.diff import Difference, Keys, anywhere, diff
from tracer.trace import Trace

Corner = tuple[int, int]
"""A position in a and the one in b that belongs to it."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How two runs go side by side, and where they part.

    `by_round` and `by_time` are corners, from ``(0, 0)`` to the ends of both. Between two corners
    both runs set out together, as many moments as the longer way has steps; the shorter way is
    spread over them. `matches` are stretches of steps that are the same in both: the index in a,
    the one in b, and how many steps.
    """

    by_round: tuple[Corner, ...]
    by_time: tuple[Corner, ...]
    matches: tuple[tuple[int, int, int], ...]
    difference: Difference
    steps: Corner

    def to_json(self) -> dict[str, Any]:
        """Return the pairing as the front end reads it: the numbers one after the other."""
        return {
            "by_round": [number for corner in self.by_round for number in corner],
            "by_time": [number for corner in self.by_time for number in corner],
            "matches": [number for stretch in self.matches for number in stretch],
        }

    def divergence(self) -> dict[str, Any]:
        """Return what the front end says of the first difference, in one line.

        `at` holds the positions just after the steps that differ: 0 and 0 when the runs did not
        begin alike, the end of a run that was over; None when the runs are equal.
        """
        found = self.difference
        at = None
        if found:
            indices = (found.index_a, found.index_b)
            if indices == (None, None):
                at = [0, 0]
            else:
                pairs = zip(indices, self.steps, strict=True)
                at = [steps if index is None else index + 1 for index, steps in pairs]
        return {"text": found.what, "at": at}


def pair(a: Trace, b: Trace) -> Pairing:
    """Return which moments of the runs `a` and `b` belong together.

    By round, the waits of both stand side by side, one by one, and within a round the steps that
    are the same in both. By time, both clocks start with the first step. Raises ValueError for a
    part of a trace.
    """
    found = diff(a, b)
    steps_a, steps_b = list(a), list(b)
    numbers: dict[object, int] = {}
    keys_a, keys_b = (
        [numbers.setdefault(anywhere(key), len(numbers)) for key in _keys(trace, a, b)]
        for trace in (a, b)
    )
    rounds = list(_rounds(steps_a, steps_b))
    matches = [
        match
        for (from_a, from_b), (to_a, to_b) in zip([(0, 0), *rounds], rounds, strict=False)
        for match in _matches(keys_a[from_a:to_a], keys_b[from_b:to_b], from_a, from_b)
    ]
    corners = sorted({(0, 0), *rounds, *matches, *((i + 1, j + 1) for i, j in matches)})
    return Pairing(
        tuple(_straightened(corners)),
        tuple(_straightened(_times(steps_a, steps_b))),
        tuple(_stretches(matches)),
        found,
        (len(a), len(b)),
    )


def _keys(trace: Trace, a: Trace, b: Trace) -> Iterator[Any]:
    keys = Keys(trace, a.base.backend == b.base.backend)
    keys.base()  # it gives the descriptors that were there their numbers
    return keys.steps()


def _rounds(a: Sequence[Any], b: Sequence[Any]) -> Iterator[Corner]:
    """Yield where the rounds end; a run that has no more of them waits at its end."""
    ends_a, ends_b = (
        [at for at, step in enumerate(steps) if step.kind == "WaitStarted"] + [len(steps)]
        for steps in (a, b)
    )
    for number in range(max(len(ends_a), len(ends_b))):
        yield ends_a[min(number, len(ends_a) - 1)], ends_b[min(number, len(ends_b) - 1)]


def _times(a: Sequence[Any], b: Sequence[Any]) -> Iterator[Corner]:
    """Yield, for each time at which something happened, how much had happened in both by then."""
    at_a = at_b = 0
    yield at_a, at_b
    while at_a < len(a) or at_b < len(b):
        now = min(
            steps[at].t_ns - steps[0].t_ns
            for steps, at in ((a, at_a), (b, at_b))
            if at < len(steps)
        )
        while at_a < len(a) and a[at_a].t_ns - a[0].t_ns <= now:
            at_a += 1
        while at_b < len(b) and b[at_b].t_ns - b[0].t_ns <= now:
            at_b += 1
        yield at_a, at_b


def _matches(a: list[int], b: list[int], from_a: int, from_b: int) -> Iterator[Corner]:
    """Yield the indices of steps with the same keys, in an order that both runs keep.

    What both begin and end with is the same; between, the first of a kind is matched with the
    first, the second with the second, and of these as many are kept as do not cross.
    """
    start, most = 0, min(len(a), len(b))
    while start < most and a[start] == b[start]:
        start += 1
    end = 0
    while end < most - start and a[-1 - end] == b[-1 - end]:
        end += 1
    places: dict[int, list[int]] = defaultdict(list)
    for index in range(len(b) - end - 1, start - 1, -1):
        places[b[index]].append(index)
    candidates = [
        (index, places[a[index]].pop())
        for index in range(start, len(a) - end)
        if places.get(a[index])
    ]
    for index in range(start):
        yield from_a + index, from_b + index
    for index_a, index_b in _without_crossings(candidates):
        yield from_a + index_a, from_b + index_b
    for index in range(end, 0, -1):
        yield from_a + len(a) - index, from_b + len(b) - index


def _without_crossings(candidates: list[Corner]) -> list[Corner]:
    """Return as many of `candidates`, which rise in a, as rise in b too."""
    lowest: list[int] = []  # the least end in b of a chain of each length
    ends: list[int] = []  # which candidate that is
    before: list[int] = []  # the one before each candidate in its chain
    for number, (_, index_b) in enumerate(candidates):
        length = bisect_left(lowest, index_b)
        lowest[length : length + 1] = [index_b]
        ends[length : length + 1] = [number]
        before.append(ends[length - 1] if length else -1)
    kept: list[Corner] = []
    number = ends[-1] if ends else -1
    while number >= 0:
        kept.append(candidates[number])
        number = before[number]
    return kept[::-1]


def _straightened(corners: Iterable[Corner]) -> Iterator[Corner]:
    """Yield `corners` without those that lie on a straight way, where one step meets one step."""
    kept: list[Corner] = []
    for corner in corners:
        if len(kept) > 1:
            (before_a, before_b), (at_a, at_b) = kept
            ways = {(at_a - before_a, at_b - before_b), (corner[0] - at_a, corner[1] - at_b)}
            if _is_straight(ways):
                kept[1] = corner
                continue
            yield kept.pop(0)
        if not kept or corner != kept[-1]:
            kept.append(corner)
    yield from kept


def _is_straight(ways: set[Corner]) -> bool:
    """Whether on all `ways` both runs go on, or only a, or only b."""
    kinds = {(a > 0, b > 0) for a, b in ways}
    return len(kinds) == 1 and all(a == b or not a or not b for a, b in ways)


def _stretches(matches: Iterable[Corner]) -> Iterator[tuple[int, int, int]]:
    start_a, start_b, length = 0, 0, 0
    for index_a, index_b in matches:
        if length and (index_a, index_b) == (start_a + length, start_b + length):
            length += 1
            continue
        if length:
            yield start_a, start_b, length
        start_a, start_b, length = index_a, index_b, 1
    if length:
        yield start_a, start_b, length
