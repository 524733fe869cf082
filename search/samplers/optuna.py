"""Optuna's samplers behind the same contract: TPE, one or many variables at once, and NSGA-II.

Each suggestion has a new study in memory, told what we were told, and a new sampler with a seed of its own, so that it
follows from what was told alone; NSGA-II's generations are counted from it too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..space import Values
from ..variable import Variable
from .base import Known, Sampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

POPULATION = 20
"""Of NSGA-II; its default of 50 finds less in a few hundred evaluations."""
TRIES = 20
"""Suggestions that may be forbidden or known before one is drawn at random."""
GENERATION = "NSGAIISampler:generation"


class _Optuna(Sampler):
    """Any of its samplers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        import optuna

        super().__init__(*args, **options)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._trials: dict[str, FrozenTrial] = {}

    def _take_in(self, key: str) -> None:
        fact = self.known[key]
        if self._done(fact):
            number = list(self._trials).index(key) if key in self._trials else len(self._trials)
            self._trials[key] = self._trial(fact, number)

    def _trial(self, fact: Known, number: int) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        shown = {v.name: v for v in self.space.variables if v.name in fact.values}
        return create_trial(
            state=TrialState.FAIL if fact.failed else TrialState.COMPLETE,
            values=None if fact.failed else self._weighed(fact),
            params={name: _label(v, fact.values[name]) for name, v in shown.items()},
            distributions={name: _distribution(v) for name, v in shown.items()},
            constraints=None if fact.failed or not self.bounds else self._missed(fact),
            system_attrs={GENERATION: number // POPULATION},
        )

    def _weighed(self, fact: Known) -> list[float]:
        return [math.log(fact.costs[name]) if name in self.log else fact.costs[name] for name in self.objectives]

    def _suggest(self, n: int) -> list[Values]:
        found: dict[str, Values] = {}
        rng = self._rng()
        study = self._study()
        study.sampler = self._sampler(int(rng.integers(2**31)))
        for _ in range(TRIES * n):
            if len(found) == n:
                break
            values = self._asked(study)
            if self.space.why_forbidden(values) is None and self._new(values, found):
                found[self.key(values)] = values
        return [*found.values(), *self._fresh(n - len(found), rng, found)]

    def _study(self) -> Study:
        import optuna

        study = optuna.create_study(directions=["minimize"] * len(self.objectives))
        study.add_trials(self._trials.values())
        return study

    def _asked(self, study: Study) -> Values:
        """A suggestion; its trial is ended at once, because a study must not grow by what nobody evaluates."""
        from optuna.trial import TrialState

        trial = study.ask()
        values: Values = {}
        for variable in self.space.variables:
            if variable.exists(values):
                values[variable.name] = _suggested(trial, variable)
        study.tell(trial, state=TrialState.FAIL)
        return values

    def _sampler(self, seed: int) -> BaseSampler:
        raise NotImplementedError


class Tpe(_Optuna):
    """TPE over all variables together."""

    multivariate = True

    def _sampler(self, seed: int) -> BaseSampler:
        import warnings

        from optuna.samplers import TPESampler

        conditional = any(variable.conditions for variable in self.space.variables)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that `multivariate` and `group` are experimental
            return TPESampler(seed=seed, multivariate=self.multivariate, group=self.multivariate and conditional)


class TpeIndependent(Tpe):
    """TPE as it comes: each variable for itself."""

    multivariate = False


class Nsga2(_Optuna):
    """NSGA-II with a small population."""

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=POPULATION, seed=seed)


def _distribution(variable: Variable) -> BaseDistribution:
    """Over level numbers where there are levels: any JSON value may stand behind one."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if variable.levels is None:
        return FloatDistribution(0, 1)
    if variable.ordered:
        return IntDistribution(0, len(variable.levels) - 1)
    return CategoricalDistribution(list(range(len(variable.levels))))


def _label(variable: Variable, value: Any) -> float:
    place = variable.place(value)
    return place if variable.levels is None else int(place)


def _suggested(trial: Trial, variable: Variable) -> Any:
    place = trial._suggest(variable.name, _distribution(variable))
    return variable.at(place) if variable.levels is None else variable.levels[int(place)]
