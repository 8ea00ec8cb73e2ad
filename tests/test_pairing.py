"""`pair`: which moments of two runs belong side by side; and the compact picture for two."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from math import ceil
from xml.etree import ElementTree

import pytest

from tests.test_diff import served, with_step
from tests.traces import echo_trace, hostile_trace, random_trace
from tracer.contents import compact, shape
from tracer.diagram import GraphvizMissing, compact_layout, layout
from tracer.pairing import Corner, Pairing, _matches, pair
from tracer.trace import BaseRegistration, Trace

COUPLES = [(echo_trace(3), echo_trace(5)), (echo_trace(), hostile_trace())] + [
    (random_trace(seed), random_trace(seed + 1, rounds=25)) for seed in range(6)
]


def moments(corners: tuple[Corner, ...]) -> list[Corner]:
    """Return all moments on the way from corner to corner."""
    all_of_them = [corners[0]]
    for (from_a, from_b), (to_a, to_b) in pairwise(corners):
        most = max(to_a - from_a, to_b - from_b)
        all_of_them += [
            (
                from_a + ceil((to_a - from_a) * far / most),
                from_b + ceil((to_b - from_b) * far / most),
            )
            for far in range(1, most + 1)
        ]
    return all_of_them


def waits(trace: Trace) -> list[int]:
    """Return the positions just after each wait began."""
    return [at for at, step in enumerate(trace, 1) if step.kind == "WaitStarted"]


def without(trace: Trace, index: int) -> Trace:
    return Trace(trace.base, trace.functions, [s for at, s in enumerate(trace) if at != index])


def matched(pairing: Pairing) -> list[Corner]:
    return [(a + at, b + at) for a, b, length in pairing.matches for at in range(length)]


@pytest.mark.parametrize("couple", COUPLES)
@pytest.mark.parametrize("beat", ["by_round", "by_time"])
def test_every_step_of_both_has_its_moment(couple: tuple[Trace, Trace], beat: str) -> None:
    """From the beginning to both ends, each moment takes one run or both on, by a single step."""
    a, b = couple
    way = moments(getattr(pair(a, b), beat))
    assert (way[0], way[-1]) == ((0, 0), (len(a), len(b)))
    steps = {(to[0] - at[0], to[1] - at[1]) for at, to in pairwise(way)}
    assert steps <= {(1, 0), (0, 1), (1, 1)}


@pytest.mark.parametrize("couple", COUPLES)
def test_by_round_the_waits_stand_side_by_side(couple: tuple[Trace, Trace]) -> None:
    """The k-th wait of a begins at the moment at which the k-th of b does."""
    a, b = couple
    way = set(moments(pair(a, b).by_round))
    both = list(zip(waits(a), waits(b), strict=False))
    assert both
    assert way >= set(both)


def test_run_with_fewer_rounds_waits_at_its_end() -> None:
    """Where one run has no more rounds, it stands at its end while the other goes on."""
    a, b = random_trace(1, rounds=5), random_trace(1, rounds=30)
    way = moments(pair(a, b).by_round)
    later = [at_a for at_a, at_b in way if at_b >= waits(b)[len(waits(a))]]
    assert set(later) == {len(a)}


@pytest.mark.parametrize("couple", COUPLES)
def test_by_time_both_clocks_show_the_same(couple: tuple[Trace, Trace]) -> None:
    """At each corner there is a time: what happened until then is shown, nothing later is."""
    a, b = couple
    for corner in pair(a, b).by_time:
        done = [t[at - 1].t_ns - t[0].t_ns for t, at in zip(couple, corner, strict=True) if at]
        later = [
            t[at].t_ns - t[0].t_ns for t, at in zip(couple, corner, strict=True) if at < len(t)
        ]
        assert not done or not later or max(done) < min(later)


@pytest.mark.parametrize("couple", COUPLES)
def test_matches_are_of_one_kind_and_do_not_cross(couple: tuple[Trace, Trace]) -> None:
    """Steps that belong together are of one kind, rise in both runs, and share a moment."""
    a, b = couple
    found = pair(a, b)
    matches = matched(found)
    assert matches
    assert all(a[at_a].kind == b[at_b].kind for at_a, at_b in matches)
    assert all(x[0] < y[0] and x[1] < y[1] for x, y in pairwise(matches))
    assert set(moments(found.by_round)) >= {(at_a + 1, at_b + 1) for at_a, at_b in matches}


def test_equal_runs_go_hand_in_hand() -> None:
    """Equal runs have one straight way, each step a match, and no place where they part."""
    a, b = served("epoll"), served("kqueue")
    found = pair(a, b)
    assert found.to_json() == {
        "by_round": [0, 0, len(a), len(a)],
        "by_time": [0, 0, len(a), len(a)],
        "matches": [0, 0, len(a)],
    }
    assert found.divergence() == {"text": f"The runs are equal: {len(a)} steps each.", "at": None}


@pytest.mark.parametrize("kind", ["Accepted", "Read", "WouldBlock", "DispatchEnded"])
def test_step_too_many_is_alone(kind: str) -> None:
    """A step that only one run has is the only one without a match, and the other waits for it."""
    a = echo_trace()
    index = max(at for at, step in enumerate(a) if step.kind == kind)
    found = pair(a, without(a, index))
    assert set(range(len(a))) - {at_a for at_a, _ in matched(found)} == {index}
    assert {(index, index), (index + 1, index)} <= set(moments(found.by_round))


def test_many_steps_of_one_kind_in_a_round() -> None:
    """Of repeated steps the first goes with the first, and no match is lost to a crossing."""
    a = echo_trace()
    order = list(a)
    reads = [at for at, step in enumerate(order) if step.kind == "WouldBlock"]
    order.insert(reads[0], order[reads[0]])
    found = pair(a, Trace(a.base, a.functions, order))
    assert len(matched(found)) == len(a)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("vwxyz", "qxvwyr", ["v", "w", "y"]),  # moving x matches fewer
        ("-r+r.", "+r.", ["+", "r", "."]),  # the same end, though its r is the second in a
        ("abc", "xyz", []),
    ],
)
def test_most_matches_that_do_not_cross(a: str, b: str, expected: list[str]) -> None:
    """Within a round as many steps as possible are matched, from both of its ends."""
    found = list(_matches([*map(ord, a)], [*map(ord, b)], 10, 20))
    assert [a[at_a - 10] for at_a, _ in found] == expected
    assert [b[at_b - 20] for _, at_b in found] == expected


def test_level_and_edge_part_at_the_registration() -> None:
    """A level- and an edge-triggered server part where the mode is told, in both side by side."""
    a, b = served("epoll"), served("epoll", edge_triggered=True)
    found = pair(a, b)
    at = found.divergence()["at"]
    assert at is not None
    assert [trace[where - 1].kind for trace, where in zip((a, b), at, strict=True)] == [
        "Registered",
        "Registered",
    ]
    assert found.divergence()["text"] == "registered: edge-triggered is False in a, True in b"
    assert tuple(at) in moments(found.by_round)
    assert at[0] - 1 not in {at_a for at_a, _ in matched(found)}


def test_what_is_said_of_the_first_difference() -> None:
    """One line without what the front end says itself: another step, an end, another beginning."""
    a = echo_trace()
    step = next(at for at, step in enumerate(a) if step.kind == "WouldBlock")
    assert pair(a, without(a, step)).divergence() == {
        "text": "would block in a, dispatch ended in b.",
        "at": [step + 1, step + 1],
    }
    shorter = without(a, len(a) - 1)
    assert pair(a, shorter).divergence() == {
        "text": "b is over, while a goes on.",
        "at": [len(a), len(a) - 1],
    }
    other = replace(
        a.base, registrations=(BaseRegistration(9, "x", "read", False, False, False, None),)
    )
    elsewhere = pair(a, Trace(other, a.functions, list(a))).divergence()
    assert elsewhere["at"] == [0, 0]
    assert elsewhere["text"].startswith("The runs did not begin alike: ")
    named = with_step(a, step, call="x. Then a (y).")
    assert "x. Then a (y). in b" in pair(a, named).divergence()["text"]


def test_empty_and_partial_traces() -> None:
    """A trace without steps pairs with any other; a part of one is refused."""
    a = echo_trace()
    empty = Trace(a.base, a.functions, [])
    assert moments(pair(a, empty).by_round)[-1] == (len(a), 0)
    assert moments(pair(empty, empty).by_time) == [(0, 0)]
    with pytest.raises(ValueError, match="part of a trace"):
        pair(a, a[3:])


def drawn(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Return each place and its left, top, right and bottom."""
    found = {}
    for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        if "place" in group.get("class", "").split():
            box = group[0]
            left, top, width, height = (
                float(box.get(n, "")) for n in ("x", "y", "width", "height")
            )
            found[group.get("id", "")] = (left, top, left + width, top + height)
    return found


@pytest.fixture(scope="module")
def both() -> tuple[Trace, Trace]:
    return echo_trace(), random_trace(99, rounds=60, most_clients=60)


@pytest.fixture(scope="module")
def compact_svg(both: tuple[Trace, Trace]) -> str:
    try:
        return compact_layout(*both)
    except GraphvizMissing as missing:
        pytest.skip(str(missing))


def test_compact_picture_has_the_places_of_its_shape(
    both: tuple[Trace, Trace], compact_svg: str
) -> None:
    """The compact picture has the wide one's kinds of places and arrows, as many as it says."""
    wide = layout(both[1])

    def kinds(svg: str) -> set[str]:
        names = {re.sub(r"\d+", "", name) for name in re.findall(r'<g id="([^"]+)"', svg)}
        return {name for name in names if not name.endswith("-more")}  # not each trace needs them

    assert kinds(compact_svg) == kinds(wide)
    places = compact(*map(shape, both))
    names = set(drawn(compact_svg))
    assert {f"row{places.rows - 1}-fd", f"code{places.lines - 1}-text"} <= names
    assert not {f"row{places.rows}-fd", f"code{places.lines}-text"} & names
    assert f'data-rows="{places.rows}" data-events="{places.events}"' in compact_svg


def test_compact_picture_is_narrow_and_nothing_in_it_overlaps(compact_svg: str) -> None:
    """It fits half a wide screen at full size, and no place covers another or sticks out."""
    width, height = (float(n) for n in re.findall(r'viewBox="0 0 (\S+) ([^"]+)"', compact_svg)[0])
    assert width < 600
    boxes = list(drawn(compact_svg).items())
    for at, (name, (left, top, right, bottom)) in enumerate(boxes):
        assert 0 <= left < right <= width, name
        assert 0 <= top < bottom <= height, name
        for other, (left2, top2, right2, bottom2) in boxes[at + 1 :]:
            # Cells share an edge, which Graphviz gives to both; a head covers the seam beside it.
            apart = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
            assert min(apart) <= 2 or "flow" in name + other, f"{name} and {other}"


def test_compact_picture_serves_all_traces(both: tuple[Trace, Trace]) -> None:
    """The places are enough for the larger of the traces, or say that there are more."""
    small, large = map(shape, both)
    places = compact(small, large)
    assert compact(large, small) == places
    assert places.rows == 6
    assert places.more_rows
    few = compact(small)
    assert (few.rows, few.more_rows) == (small.rows, False)
