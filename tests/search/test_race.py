"""The race in a simulation: true latencies, noise within a launch and from launch to launch; no clock, no runtime."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from seatrial.devices.launches import ArmRun, Launch
from seatrial.search import race
from seatrial.search.race import REFERENCE

FAR_TOO_MANY = 60
Groups = Mapping[str, Sequence[str]]
Fails = Callable[[str, int], bool]


class World:
    """Candidates with true latencies (ms) on a machine with noise.

    `launch_noise` is a standard deviation for each arm and launch, as measured on shared machines: 0.7 %; `drift` moves
    all arms of one launch together, as a busy hour does. `fails` says in which of its launches (from 0) an arm fails.
    """

    def __init__(
        self, truth: Mapping[str, float], *, seed: int = 0, launch_noise: float = 0.007, fails: Fails | None = None
    ) -> None:
        self.truth = {REFERENCE: 5.0, **truth}
        self.rng = random.Random(seed)
        self.launch_noise = launch_noise
        self.fails = fails or (lambda name, count: False)
        self.counts: dict[str, int] = {}

    def launch(self, index: int, step: race.Next) -> Launch:
        drift = self.rng.uniform(0, 0.5)
        arms = {name: self._run(name, step.rounds, drift) for name in [REFERENCE, *step.ids]}
        return Launch(index, f"0/{index}", [], arms, 0.0)

    def _run(self, name: str, rounds: int, drift: float) -> ArmRun:
        count = self.counts.get(name, 0)
        self.counts[name] = count + 1
        if self.fails(name, count):
            return ArmRun(name, name, "timeout", "no answer")
        centre = math.log(self.truth[name] * 1e6) + drift + self.rng.gauss(0, self.launch_noise)
        blocks = [[int(math.exp(centre + self.rng.gauss(0, 0.01)))] * 3 for _ in range(rounds)]
        return ArmRun(name, name, blocks=blocks)


def run(world: World, groups: Groups, launches: list[Launch] | None = None) -> list[Launch]:
    launches = launches if launches is not None else []
    while (step := race.plan(launches, groups)).ids:
        launches.append(world.launch(len(launches), step))
        assert len(launches) <= FAR_TOO_MANY, "the race doesn't end"
    return launches


def took_part(launches: Sequence[Launch], name: str) -> int:
    return sum(name in launch.arms for launch in launches)


@pytest.mark.parametrize("seed", range(6))
def test_the_fastest_of_each_target_is_found(seed: int) -> None:
    truth = {"a1": 4.0, "a2": 4.3, "a3": 9.0, "b1": 2.0, "b2": 2.6, "b3": 2.15, "b4": 2.09}
    groups = {"a": ["a3", "a2", "a1"], "b": ["b4", "b3", "b2", "b1"]}
    launches = run(World(truth, seed=seed), groups)
    assert race.leader(launches, groups["a"]) == "a1"
    assert race.leader(launches, groups["b"]) == "b1"


def test_one_that_is_far_behind_gets_one_launch() -> None:
    truth = {"fast": 2.0, "near": 2.02, "far": 2.6}
    launches = run(World(truth), {"t": list(truth)})
    assert took_part(launches, "far") == 1
    assert took_part(launches, "near") > 1


def test_one_target_does_not_race_against_another() -> None:
    """The best of each target is wanted: a slow runtime's only candidate is neither raced nor dropped."""
    launches = run(World({"a": 2.0, "b": 2.01}), {"x": ["a"], "y": ["b"]})
    assert len(launches) == 1
    assert set(launches[0].arms) == {REFERENCE, "a", "b"}


def test_all_are_screened_before_any_is_raced() -> None:
    truth = {f"c{i}": 2.0 + i / 1000 for i in range(15)}
    world, launches, groups = World(truth), [], {"t": list(truth)}
    for _ in range(3):
        step = race.plan(launches, groups)
        assert step.rounds == race.SCREEN_ROUNDS
        assert len(step.ids) <= race.ARMS_PER_LAUNCH
        launches.append(world.launch(len(launches), step))
    assert {name for launch in launches for name in launch.arms} == {REFERENCE, *truth}
    assert race.plan(launches, groups).rounds == race.RACE_ROUNDS


@pytest.mark.parametrize("seed", range(4))
def test_equal_ones_end_as_a_tie(seed: int) -> None:
    launches = run(World({"a": 2.0, "b": 2.0}, seed=seed), {"t": ["a", "b"]})
    assert len(launches) <= race.MOST


@pytest.mark.parametrize("ratio", [1.0, 1.005, 1.01, 1.02, 1.05])
def test_the_race_ends_whatever_the_distance(ratio: float) -> None:
    truth = {f"{group}{i}": 2.0 * ratio**i for group in "abc" for i in range(5)}
    groups = {group: [f"{group}{i}" for i in range(5)] for group in "abc"}
    launches = run(World(truth), groups)
    for group, ids in groups.items():
        lead = race.leader(launches, ids)
        assert lead is not None
        assert truth[lead] <= truth[f"{group}0"] * 1.011, "within 1 % of the fastest"


@pytest.mark.parametrize("seed", range(4))
def test_a_lead_of_two_percent_is_settled_side_by_side(seed: int) -> None:
    """Decided by launches that hold both, not by way of the reference."""
    launches = run(World({"a": 2.0, "b": 2.04}, seed=seed, launch_noise=0.003), {"t": ["b", "a"]})
    together = [launch for launch in launches if {"a", "b"} <= set(launch.arms)]
    assert len(together) >= race.FEWEST
    assert race.leader(launches, ["a", "b"]) == "a"


def test_a_noisy_machine_does_not_make_it_endless() -> None:
    truth = {f"c{i}": 2.0 for i in range(9)}
    launches = run(World(truth, launch_noise=0.05), {"t": list(truth)})
    assert max(took_part(launches, name) for name in truth) <= race.MOST * 3


def test_the_leader_races_beside_its_rivals() -> None:
    """With more rivals than arms in a launch, each rival still meets the leader of its own target."""
    truth = {f"{group}{i}": 2.0 * 1.004**i for group in "ab" for i in range(6)}
    groups = {group: [f"{group}{i}" for i in range(6)] for group in "ab"}
    launches = run(World(truth, launch_noise=0.002), groups)
    for launch in launches[2:]:
        for ids in groups.values():
            assert len(set(ids) & set(launch.arms)) != 1, "a candidate alone in a launch decides nothing"


ALWAYS: dict[str, Fails] = {
    "from the start": lambda name, count: name == "b",
    "after its first launch": lambda name, count: name == "b" and count > 0,
    "the leader, after its first launch": lambda name, count: name == "a" and count > 0,
    "every other time": lambda name, count: name == "b" and count % 2 == 1,
    "all of them": lambda name, count: name != REFERENCE,
    "all, after the first launch": lambda name, count: name != REFERENCE and count > 0,
}


@pytest.mark.parametrize("how", list(ALWAYS))
def test_candidates_that_fail_never_hang_the_race(how: str) -> None:
    truth = {"a": 2.0, "b": 2.005, "c": 2.01}
    launches = run(World(truth, fails=ALWAYS[how]), {"t": list(truth)})
    assert len(launches) <= 2 * race.MOST
    if how == "from the start":
        assert took_part(launches, "b") == 1, "one that can't run isn't tried again"
        assert race.leader(launches, list(truth)) in {"a", "c"}


def test_a_launch_whose_reference_failed_is_made_again() -> None:
    """The search ends there with an error; the same command again must time those that were in it."""
    world = World({"a": 2.0, "b": 3.0}, fails=lambda name, count: name == REFERENCE and count == 0)
    groups = {"t": ["a", "b"]}
    first = world.launch(0, race.plan([], groups))
    assert set(race.plan([first], groups).ids) == {"a", "b"}
    assert race.leader(run(world, groups, [first]), ["a", "b"]) == "a"


def test_a_race_goes_on_where_it_was_cut_off() -> None:
    """The plan follows from the launches alone: after any prefix it is what it was."""
    truth = {f"c{i}": 2.0 * 1.01**i for i in range(8)}
    groups = {"t": list(truth)}
    launches = run(World(truth), groups)
    steps = [set(launch.arms) - {REFERENCE} for launch in launches]
    for cut in range(len(launches)):
        again = race.plan([Launch.from_dict(launch.to_dict()) for launch in launches[:cut]], groups)
        assert set(again.ids) == steps[cut]
    assert race.plan(launches, groups).ids == []


def test_nothing_to_race() -> None:
    assert race.plan([], {}).ids == []
    assert race.leader([], ["a"]) is None


def test_a_gap_comes_from_common_launches_or_by_way_of_the_reference() -> None:
    world = World({"a": 2.0, "b": 3.0}, launch_noise=0.0)
    together = [world.launch(0, race.Next(["a", "b"], 4))]
    apart = [world.launch(i, race.Next([name], 4)) for i, name in enumerate("ab")]
    for launches in (together, apart):
        (found,) = race.gap(launches, "a", "b")
        assert math.exp(found) == pytest.approx(1.5, rel=0.02)
    assert race.gap(together, "a", "c") == []


def test_one_that_was_given_another_chance_and_took_it_has_not_failed() -> None:
    world = World({"a": 2.0}, fails=lambda name, count: name == "a" and count == 0)
    step = race.Next(["a"], race.SCREEN_ROUNDS)
    first, second = (world.launch(index, step) for index in range(2))
    assert race.failures([first]) == {"a": "no answer"}
    assert race.failures([first, second]) == {}
    later = replace(first, started=second.started + 1)
    assert race.failures([later, second]) == {"a": "no answer"}, "the last one tells, whatever the order of the list"
