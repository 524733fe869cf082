"""One contract for all samplers; and what the default finds beside random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from seatrial.core.errors import UsageError
from seatrial.search.samplers import NAMES, Sampler, make
from seatrial.search.samplers.codes import Codes
from seatrial.search.samplers.improve import boxes, expected, front
from seatrial.search.samplers.model import Model
from seatrial.search.space import Space, Values, values_id

MIXED = Space.from_dict(
    {
        "depth": [1, 2, 3],
        "width": {"low": 8, "high": 64, "step": 8},
        "kernel": {"choices": [3, 5], "when": {"depth": [2, 3]}},
        "act": ["relu", "silu", "gelu"],
        "lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "decay": {"low": 0.0, "high": 1.0, "when": {"act": ["silu", "gelu"]}},
    },
    [{"if": {"kernel": 5, "width": [8, 16]}, "reason": "too narrow"}],
)
FINITE = Space.from_dict(
    {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 5], "c": {"choices": ["x", "y"], "when": {"a": [1, 2]}}},
    [{"if": {"a": 5, "b": 5}, "reason": "too large"}],
)
OPEN = [name for name in NAMES if name != "exhaustive"]


def sampler(name: str, space: Space = FINITE, objectives: tuple[str, ...] = ("error", "ms"), **options: Any) -> Sampler:
    return make(space, objectives, name, **{"log": ("ms",), **options} if "ms" in objectives else options)


def costs(values: Values) -> dict[str, float]:
    """Larger is slower and better, as with networks; the rest bends it."""
    if "a" in values:
        size, twist = values["a"] * values["b"], 0.5 * (values.get("c") == "x") + 0.1 * values["b"]
    else:
        size, twist = values["depth"] * values["width"] / 8, abs(np.log10(values["lr"]) + 2) + values.get("decay", 0.3)
    return {"error": 1 / size + 0.05 * twist, "ms": 0.1 * size, "size": float(size)}


def run(made: Sampler, n: int, skip: tuple[str, ...] = ()) -> list[Values]:
    found = []
    for _ in range(n):
        values = made.ask()
        if values is None:
            break
        found.append(values)
        made.tell(values, {name: cost for name, cost in costs(values).items() if name in made.names})
    return found


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


@pytest.mark.parametrize("name", OPEN)
def test_suggestions_are_valid_and_different_with_conditions_and_forbidden_ones(name: str) -> None:
    found = run(sampler(name, MIXED), 30)
    for values in found:
        MIXED.check(values)
    assert len({values_id(v) for v in found}) == 30


def test_a_space_that_is_exhausted_ends(name: str) -> None:
    found = run(sampler(name), 100)
    assert len(found) == FINITE.size
    assert {values_id(v) for v in found} == {values_id(v) for v in FINITE.all()}


def test_no_two_candidates_of_one_key(name: str) -> None:
    made = sampler(name, key=lambda values: str(values["a"] * values["b"]))
    found = run(made, 100)
    products = [v["a"] * v["b"] for v in found]
    assert len(products) == len(set(products)) == len({v["a"] * v["b"] for v in FINITE.all()})
    twin = {"a": 4, "b": 1}
    assert made.known[made.key(twin)].costs["ms"] == pytest.approx(0.4)  # of 1 × 4, 2 × 2 or 4 × 1


def test_what_somebody_evaluates_or_failed_is_not_suggested_again(name: str) -> None:
    made = sampler(name)
    seen = [made.ask() for _ in range(5)]
    made.take({"a": 3, "b": 3})
    for values in seen:
        assert values is not None
        made.tell(values, failed=True)
    found = [*seen, *run(made, 100)]
    assert len({values_id(v) for v in found if v}) == len(found)
    assert len([v for v in found if v != {"a": 3, "b": 3}]) == (FINITE.size or 0) - 1


@pytest.mark.parametrize("space", [FINITE, MIXED], ids=["finite", "mixed"])
def test_told_again_it_goes_on_the_same_and_another_seed_elsewhere(name: str, space: Space) -> None:
    if name == "exhaustive":
        space = FINITE
    old = sampler(name, space, seed=3)
    facts: list[tuple[Values, dict[str, float], dict[str, float], bool]] = []
    for i in range(23):
        values = old.ask()
        assert values is not None
        found = {k: v for k, v in costs(values).items() if k in old.names}
        facts.append((values, {} if i == 7 else found, {} if i == 7 else {"ms": 0.01}, i == 7))
        old.tell(*facts[-1])
    new, others = sampler(name, space, seed=3), [sampler(name, space, seed=seed) for seed in (4, 5, 6)]
    for fact in facts:
        for made in (new, *others):
            made.tell(*fact)
    asked = new.ask()
    assert asked == old.ask()
    if name in ("random", "nsga2") or (name == "tpe" and space is MIXED):  # of few candidates TPE takes the best
        assert any(made.ask() != asked for made in others)


def test_cheap_costs_come_first_and_spare_the_dear_one(name: str) -> None:
    made = sampler(name, bounds={"size": 8}, cheap=("ms", "size"))
    trained = []
    for _ in range(12):
        for values in made.propose(4):
            assert made.known.get(made.key(values)) is None
            made.tell(values, {k: v for k, v in costs(values).items() if k in made.cheap})
        values = made.ask()
        if values is None:
            break
        known = made.known.get(made.key(values))
        if known:
            assert costs(values)["size"] <= 8  # the infeasible is never trained
            trained.append(values)
        made.tell(values, {k: v for k, v in costs(values).items() if k in made.names})
    assert len(trained) >= 9


def test_the_default_goes_on_the_same_where_costs_are_told_in_parts_and_in_any_order() -> None:
    old, told = (sampler("model", MIXED, bounds={"size": 20.0}, cheap=("ms", "size"), seed=5) for _ in range(2))
    facts: list[tuple[Values, dict[str, float]]] = []
    for i in range(23):
        for values in old.propose(3):
            facts.append((values, {k: v for k, v in costs(values).items() if k in old.cheap}))
            old.tell(*facts[-1])
        asked = old.ask() if i % 4 else next(iter(old.propose(1)))  # now and then the dear cost alone
        assert asked is not None
        facts.append((asked, {"error": costs(asked)["error"]}))
        old.tell(*facts[-1])
    for fact in facts:
        told.tell(*fact)
    assert told.propose(5) == old.propose(5)
    assert told.ask() == old.ask()
    assert isinstance(old, Model) and isinstance(told, Model)
    assert np.array_equal(told._weights["error"][2].theta, old._weights["error"][2].theta)  # to the last digit


def test_what_cheap_costs_tell_of_the_dear_one_is_learned() -> None:
    """Nothing but the time tells the error: by its variables no candidate is like another."""
    space, rng = Space.from_dict({"a": list(range(40)), "b": list(range(40))}), np.random.default_rng(0)
    ms = np.exp(rng.uniform(0, 3, (40, 40)))
    made = sampler("model", space, objectives=("error",), bounds={"ms": 100.0}, cheap=("ms",))
    found = []
    for _ in range(20):
        for values in made.propose(10):
            made.tell(values, {"ms": ms[values["a"], values["b"]]})
        values = made.ask()
        assert values is not None
        found.append(abs(float(np.log(ms[values["a"], values["b"]])) - 2))
        made.tell(values, {"error": found[-1]})
    assert np.median(found[10:]) < 0.1


def test_how_bad_a_bad_cost_is_tells_little_and_its_order_is_kept() -> None:
    made = Model(FINITE, ["error"])
    errors = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 3.0, 1e6]
    for values, error in zip(FINITE.all(), errors, strict=False):
        made.tell(values, {"error": error}, {"error": 0.01})
    weighed, noise = made._weighed("error", list(made.known))
    assert (np.diff(weighed) > 0).all() and (np.diff(noise) <= 0).all()
    assert weighed[:4].tolist() == errors[:4] and noise[0] == 0.01
    assert weighed[-1] - 0.45 < 0.45 - 0.1  # beyond the median less than below it


def test_what_cheap_costs_dominate_is_not_evaluated(name: str) -> None:
    made = sampler(name, objectives=("ms",), bounds={"error": 1.0}, cheap=("ms",))
    made.tell({"a": 1, "b": 2, "c": "y"}, {"ms": 1.0, "error": 0.5})
    made.tell({"a": 3, "b": 3}, {"ms": 2.0})
    made.tell({"a": 3, "b": 4}, {"ms": 0.5})
    assert made.ask() == {"a": 3, "b": 4}
    assert made.ask() != {"a": 3, "b": 3}


def test_noise_failures_three_objectives_and_a_bound_together(name: str) -> None:
    made = sampler(name, objectives=("error", "ms", "size"), bounds={"ms": 1.5})
    rng = np.random.default_rng(0)
    for i in range(30):
        values = made.ask()
        if values is None:
            break
        FINITE.check(values)
        found = {k: v * np.exp(0.1 * rng.normal()) for k, v in costs(values).items()}
        failed = values["a"] == 3
        errors = {k: 0.1 * v for k, v in found.items()} if i % 2 else {}
        made.tell(values, {} if failed else found, errors, failed)
    assert len(made.known) == 30 or made.ask() is None


def test_an_impossible_bound_ends_with_the_nearest_and_what_binds(name: str) -> None:
    space = MIXED if name != "exhaustive" else FINITE
    made = sampler(name, space, bounds={"size": 0.5, "ms": 100.0}, objectives=("error",))
    found = run(made, 1000 if name in ("random", "exhaustive") else 30)
    nearest = made.nearest
    assert nearest and nearest.binds == "size" and nearest.bound == 0.5
    assert nearest.found == min(costs(v)["size"] for v in found)
    if name in ("random", "exhaustive"):
        assert len(found) < 1000 and made.ask() is None and (made.impossible or name == "exhaustive")


def test_bounds_that_all_fail_by_end_with_the_nearest() -> None:
    """Candidates that are refused by what is known of them before they are evaluated."""
    made = sampler("random", MIXED, bounds={"size": 0.5}, objectives=("error",))
    told = 0
    while (values := made.ask()) is not None and told < 1000:
        told += 1
        made.tell(values, {"size": costs(values)["size"]}, failed=True)
    assert told < 1000 and made.impossible
    assert made.nearest and made.nearest.binds == "size"


def test_a_bound_that_is_met_has_no_nearest(name: str) -> None:
    made = sampler(name, bounds={"size": 8.0})
    run(made, 20)
    assert made.nearest is None and not made.impossible


@pytest.mark.parametrize(
    ("values", "found", "why"),
    [
        ({"a": 9, "b": 1}, {"ms": 1.0}, "one of 1, 2, 3, 4, 5"),
        ({"a": 3, "b": 1}, {"mss": 1.0}, "none of this sampler"),
        ({"a": 3, "b": 1}, {"ms": float("nan")}, "as failed"),
        ({"a": 3, "b": 1}, {"ms": 0.0}, "as failed"),
    ],
)
def test_what_can_not_be_told_is_refused(values: Values, found: dict[str, float], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        sampler("random").tell(values, found)


def test_small_spaces_are_enumerated_and_names_checked() -> None:
    assert type(make(FINITE, ["error"], budget=100)).__name__ == "Exhaustive"
    assert type(make(FINITE, ["error"], budget=10)).__name__ == "Model"
    assert type(make(MIXED, ["error"], budget=10**9)).__name__ == "Model"
    for arguments, why in [
        ((MIXED, ["error"], "exhaustive"), "continuous"),
        ((MIXED, ["error"], "best"), "one of: model"),
        ((MIXED, []), "name at least one"),
    ]:
        with pytest.raises(UsageError, match=why):
            make(*arguments)
    with pytest.raises(UsageError, match="leave `cheap` out"):
        make(MIXED, ["error"], cheap=["error"])


def test_rows_and_candidates_are_the_same() -> None:
    codes, rng = Codes(MIXED), np.random.default_rng(0)
    rows = codes.random(200, rng)
    for row in np.concatenate([rows, codes.mutate(rows, rng)]):
        values = codes.decode(row)
        MIXED.check(values)
        assert np.allclose(codes.encode(values), row, atol=1e-9)
    for row, after in zip(rows, codes.mutate(rows, np.random.default_rng(1)), strict=False):
        assert (row != after).any()


@pytest.mark.parametrize("m", [1, 2, 3])
def test_expected_improvement_is_what_drawing_gives(m: int) -> None:
    rng = np.random.default_rng(m)
    points, reference = rng.uniform(0.3, 0.9, (8, m)), np.full(m, 0.9)
    mean, deviation = np.full((1, m), 0.4), np.full((1, m), 0.2)
    lower, upper = boxes(points, reference)
    drawn = mean + deviation * rng.normal(size=(4000, m))
    grid = rng.uniform(-0.6, 0.9, (6000, m))  # what lies below the reference, drawn evenly
    free = grid[~(points[None] <= grid[:, None]).all(axis=2).any(axis=1)]
    gained = (drawn[:, None] <= free[None]).all(axis=2).mean() * len(free) / len(grid) * 1.5**m
    assert expected(mean, deviation, lower, upper)[0] == pytest.approx(gained, rel=0.1)


def test_a_front_holds_each_point_that_none_dominates() -> None:
    points = np.array([[1, 3], [2, 2], [2, 2], [3, 1], [3, 3], [1, 4]], float)
    assert front(points).tolist() == [[1, 3], [2, 2], [3, 1]]


def test_the_default_learns() -> None:
    """Beside random draws on a space of 15,000 candidates: nearer to the best of both objectives."""
    space = Space.from_dict({f"layer{i}": ["conv", "pool", "skip", "fc", "attend"] for i in range(6)})
    ms = {"conv": 2.0, "pool": 0.5, "skip": 0.1, "fc": 1.0, "attend": 4.0}
    gain = {"conv": 1.0, "pool": 0.2, "skip": 0.0, "fc": 0.1, "attend": 1.6}

    def both(values: Values) -> dict[str, float]:
        error = float(np.exp(-0.4 * sum(gain[v] for v in values.values())))
        return {"error": error, "ms": sum(ms[v] for v in values.values())}

    def area(name: str, seed: int) -> float:
        made = make(space, ["error", "ms"], name, log=["ms"], seed=seed)
        points = []
        for _ in range(40):
            values = made.ask()
            assert values is not None
            made.tell(values, both(values))
            points.append([both(values)["error"], np.log(both(values)["ms"])])
        lower, upper = boxes(np.array(points), np.array([0.25, 2.6]))  # about the median error, the slow tenth
        floor = np.array([0.0, -1.0])
        return float(0.25 * 3.6 - np.prod(np.maximum(upper, floor) - np.maximum(lower, floor), axis=1).sum())

    ours, random = ([area(name, seed) for seed in range(2)] for name in ("model", "random"))
    assert min(ours) > max(random)


def test_the_default_starts_along_the_diagonal_of_what_is_ordered() -> None:
    names = {"depth": [1, 2, 3], "width": [32, 16, 8], "kind": {"choices": ["a", "b"]}}
    names |= {"lr": {"low": 0.01, "high": 1.0}}
    many = {"when": {"depth": [2, 3]}, "low": 0, "high": 4, "step": 1}
    made = make(Space.from_dict(names | {"late": many}), ["error", "ms"], log=["ms"], seed=3)
    seen = []
    for i in range(5):
        seen.append(made.ask() or {})
        made.tell(seen[-1], {"error": 0.1 * i, "ms": 1.0 + i}, {}) if i else made.tell(seen[-1], failed=True)
    places = [tuple(v.get(name) for name in ("depth", "width", "late")) for v in seen]
    assert places == [(3, 32, 4), (1, 8, None), (2, 16, 2), (1, 8, None), (3, 32, 3)], places
    assert [round(v["lr"], 3) for v in seen] == [1.0, 0.01, 0.505, 0.258, 0.752]
