"""The generic space: read from a study file's data, enumerated, drawn from, changed, checked."""

from __future__ import annotations

import itertools
import tomllib
from typing import Any

import numpy as np
import pytest
from seatrial.core.errors import UsageError
from seatrial.search.space import Space, values_id

TOML = """
[space]
depth = [1, 2, 3]
width = {low = 8, high = 64, step = 8}
kernel = {choices = [3, 5], when = {depth = [2, 3]}}
pool = {choices = ["max", "mean"], ordered = false, when = {kernel = 5}}
stem = [[3, 1], [5, 2]]
[[forbidden]]
if = {kernel = 5, width = [8, 16]}
reason = "too narrow for 5 × 5"
[[forbidden]]
if = {stem = [3, 1], depth = 1}
reason = "too little stride"
"""


def read(text: str = TOML) -> Space:
    data = tomllib.loads(text)
    return Space.from_dict(data["space"], data.get("forbidden", []))


CONTINUOUS = Space.from_dict({"lr": {"low": 1e-4, "high": 0.1, "log": True}, "units": {"low": 1, "high": 9}})


def test_all_candidates_are_valid_and_different_and_come_in_one_order() -> None:
    found = list(read().all())
    assert found == list(read().all()) and len(found) == read().size
    for values in found:
        read().check(values)
    assert len({values_id(v) for v in found}) == len(found)
    # depth 1: 8 widths, one stem; else two stems, kernel 3 with 8 widths, kernel 5 with 6 and two pools
    assert len(found) == 8 + 2 * 2 * (8 + 6 * 2)


def test_the_size_of_a_space_with_conditions_alone_counts_what_exists() -> None:
    space = Space.from_dict({"depth": [1, 2, 3], "kernel": {"choices": [3, 5], "when": {"depth": 3}}})
    assert space.size == len(list(space.all())) == 4


def test_values_that_are_equal_and_of_other_types_are_other_values() -> None:
    space = Space.from_dict({"share": [1.0, 0.5]})
    space.check({"share": 1.0})
    with pytest.raises(UsageError, match="share = true"):
        space.check({"share": True})


def test_size_of_a_continuous_space_is_none_and_it_can_not_be_enumerated() -> None:
    assert CONTINUOUS.size is None
    with pytest.raises(UsageError, match="a continuous range"):
        list(CONTINUOUS.all())


@pytest.mark.parametrize("space", [read(), CONTINUOUS])
def test_draws_and_neighbours_are_valid_and_follow_the_seed(space: Space) -> None:
    def walk(seed: int) -> list[dict[str, Any]]:
        rng = np.random.default_rng(seed)
        found = [space.sample(rng)]
        for _ in range(300):
            found.append(space.mutate(found[-1], rng))
        return found

    found = walk(0)
    for before, after in itertools.pairwise(found):
        space.check(after)
        assert before != after
    assert found == walk(0) != walk(1)


def test_draws_cover_the_space_and_a_log_range_evenly() -> None:
    rng = np.random.default_rng(0)
    assert len({values_id(read().sample(rng)) for _ in range(2000)}) == read().size
    low = np.mean([CONTINUOUS.sample(rng)["lr"] < 10**-2.5 for _ in range(500)])
    assert 0.4 < low < 0.6


def test_a_space_that_is_nearly_all_forbidden_still_gives_its_candidate() -> None:
    names = [f"x{i}" for i in range(12)]
    rules = [{"if": {name: 1}, "reason": "no"} for name in names]
    space = Space.from_dict({name: [0, 1] for name in names}, rules)
    assert space.size == 1
    rng = np.random.default_rng(0)
    assert space.sample(rng) == space.mutate(space.sample(rng), rng) == dict.fromkeys(names, 0)


def test_ids_do_not_know_the_order_of_names() -> None:
    assert values_id({"a": 1, "b": [2]}) == values_id({"b": [2], "a": 1}) != values_id({"a": 1, "b": [3]})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"depth": 1, "width": 12, "stem": [5, 2]}, "width = 12"),
        ({"depth": 1, "width": 8.0, "stem": [5, 2]}, "width = 8.0"),
        ({"depth": True, "width": 8, "stem": [5, 2]}, "depth = true"),
        ({"depth": 1, "stem": [5, 2]}, "width is missing"),
        ({"depth": 2, "width": 8, "stem": [5, 2]}, "kernel is missing"),
        ({"depth": 1, "width": 8, "stem": [5, 2], "kernel": 3}, "kernel doesn't exist here"),
        ({"depth": 1, "width": 8, "stem": [5, 2], "widht": 3}, "did you mean 'width'"),
        ({"depth": 2, "width": 16, "stem": [5, 2], "kernel": 5, "pool": "max"}, "too narrow for 5 × 5"),
    ],
)
def test_what_is_no_candidate_is_refused_with_the_reason(values: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read().check(values)


@pytest.mark.parametrize(
    ("variables", "forbidden", "why"),
    [
        ({}, [], "no variables"),
        ({"a": 3}, [], "neither a list"),
        ({"a": []}, [], "no choices"),
        ({"a": [1, 1]}, [], "1 stands there twice"),
        ({"a": [1, {2}]}, [], "isn't data"),
        ({"a": {"choices": [1, 2], "ordered": "yes"}}, [], "a: ordered"),
        ({"a": {"choices": [1, 2], "low": 1}}, [], "unknown key 'low'"),
        ({"a": {"low": 1}}, [], "neither choices nor low and high"),
        ({"a": {"low": 3, "high": 3}}, [], "isn't below"),
        ({"a": {"low": 1, "high": "9"}}, [], "not a number"),
        ({"a": {"low": 1, "high": 9, "step": 0}}, [], "a: step"),
        ({"a": {"low": 0, "high": 9, "log": True}}, [], "a: log"),
        ({"a": {"low": 1, "high": 9, "log": True, "step": 2}}, [], "a: log"),
        ({"a": [1, 2], "b": {"choices": [1], "when": {"c": 1}}}, [], "no variable 'c'"),
        ({"a": [1, 2], "b": {"choices": [1], "when": {"a": 3}}}, [], "a is never 3"),
        ({"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}}, [], "circle among a, b"),
        ({"a": [1, 2]}, [{"if": {"a": 1}}], "no reason"),
        ({"a": [1, 2]}, [{"if": {}, "reason": "x"}], "no `if`"),
        ({"a": [1, 2]}, [{"if": {"b": 1}, "reason": "x"}], "no variable 'b'"),
        ({"a": [1, 2]}, [{"if": {"a": 1}, "reasons": "x"}], "did you mean 'reason'"),
        ({"a": [1, 2]}, [{"if": {"a": [1, 2]}, "reason": "x"}], "leave no candidate"),
    ],
)
def test_malformed_data_is_one_clear_error(variables: Any, forbidden: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        Space.from_dict(variables, forbidden)
    assert "the space" in caught.value.asked and caught.value.todo
