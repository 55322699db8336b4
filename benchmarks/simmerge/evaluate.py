"""How much of what there is to gain by choosing is gained: on models that were left out.

``python benchmarks/simmerge/evaluate.py --table benchmarks/simmerge/data --plot FILE`` prints the
tables of `docs/benchmarks/simmerge.md`. Each of eight splits leaves out the models of two skills.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
from games import regrets, three_way_game, two_way_game
from measure import METHODS
from regret_plot import draw
from signals import own_task
from table import OPERATORS, Pair, Table

from mergefront.examples.demo.catalogue import skill_of
from mergefront.examples.demo.skills import SKILLS
from mergefront.samplers.simmerge import Example, Prediction, Predictor, rank_chains

KINDS = ("ridge", "boosted-trees", "mlp-ensemble")
FIXED, ORACLE = "best fixed operator", "oracle"
_LABELS = {METHODS[name].label: name for name in OPERATORS}


@dataclass(frozen=True)
class Split:
    """Models that are left out.

    Args:
        held: Their skills.
        train: Pairs without any of them.
        test: Pairs with at least one.
    """

    held: frozenset[str]
    train: list[Pair]
    test: list[Pair]

    def holds(self, models: Sequence[str]) -> bool:
        """Whether one of the models is left out."""
        return any(skill_of(name) in self.held for name in models)


def splits(table: Table, n_deals: int = 2) -> list[Split]:
    """Deal the skills into pairs, `n_deals` times."""
    found = []
    for seed in range(n_deals):
        skills = list(SKILLS)
        random.Random(seed).shuffle(skills)
        for start in range(0, len(skills), 2):
            held = frozenset(skills[start : start + 2])
            split = Split(held, [], [])
            for pair in table.pairs:
                (split.test if split.holds(pair) else split.train).append(pair)
            found.append(split)
    return found


def score(table: Table, pair: Pair, operator: str) -> float:
    """Return a merge's accuracy on its parents' skills."""
    return table.score(pair, (operator,), own_task(pair))


def best_fixed(table: Table, pairs: Sequence[Pair]) -> str:
    """Return the operator that is best on average."""
    return max(OPERATORS, key=lambda o: fmean(score(table, pair, o) for pair in pairs))


def shown(values: Sequence[float], digits: int = 2) -> str:
    """Return mean and standard error over the splits."""
    error = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return f"{fmean(values):.{digits}f} ± {error:.{digits}f}"


def two_way(table: Table, split: Split) -> dict[str, float]:
    """Return mean accuracies, for choosing each pair's operator."""
    fixed = best_fixed(table, split.train)
    scores = {pair: [score(table, pair, o) for o in OPERATORS] for pair in split.test}
    means = {
        "random operator": fmean(fmean(row) for row in scores.values()),
        FIXED: fmean(score(table, pair, fixed) for pair in split.test),
        "best fixed operator, known afterwards": max(
            map(fmean, zip(*scores.values(), strict=True))
        ),
        ORACLE: fmean(max(row) for row in scores.values()),
    }
    for name, predictor, with_scores in predictors(table, split):
        picked = [pick(table, predictor, pair, fixed, with_scores) for pair in split.test]
        means[name] = fmean(score(table, *one) for one in zip(split.test, picked, strict=True))
    return means


def predictors(table: Table, split: Split) -> list[tuple[str, Predictor, bool]]:
    """Return the predictors that are compared: name, fitted, whether it sees parents' scores."""
    blind, seeing = (table.examples(split.train, flag) for flag in (False, True))
    made = [("predictor", Predictor.fit(blind), False)]
    made += [(f"  {kind} alone", Predictor.fit(blind, kinds=[kind]), False) for kind in KINDS]
    structural = [name for name in shared(blind) if is_structural(name)]
    made.append(("  structural signals", Predictor.fit(blind, structural), False))
    functional = [name for name in shared(blind) if not is_structural(name)]
    made.append(("  functional signals", Predictor.fit(blind, functional), False))
    return [*made, ("  with parents' scores", Predictor.fit(seeing), True)]


def shared(examples: Sequence[Example]) -> list[str]:
    """Return the features' names."""
    return sorted(examples[0].merge.features)


def is_structural(name: str) -> bool:
    """Whether a feature is known without running a model."""
    return "weight_" in name or "task_" in name


def pick(table: Table, predictor: Predictor, pair: Pair, fixed: str, with_scores: bool) -> str:
    """Return the operator that is predicted to be best; the fixed one where it abstains."""
    merges = [table.merge(pair, o, own_task(pair), with_scores) for o in OPERATORS]
    predicted = predictor.predict(merges)
    if not all(prediction.is_known for prediction in predicted):
        return fixed
    return OPERATORS[int(np.argmax([prediction.gain for prediction in predicted]))]


def quality(table: Table, split: Split) -> dict[str, float]:
    """Return how good the predicted gains and their intervals are."""
    predictor = Predictor.fit(table.examples(split.train))
    examples = [table.example(pair, o, own_task(pair)) for pair in split.test for o in OPERATORS]
    predicted = predictor.predict([example.merge for example in examples])
    gains = np.array([example.gain for example in examples])
    means = np.array([prediction.gain for prediction in predicted])
    inside = [
        low <= gain <= high
        for gain, (low, high) in zip(gains, (p.interval() for p in predicted), strict=True)
    ]
    return {
        "correlation of predicted and measured gain": float(np.corrcoef(means, gains)[0, 1]),
        "root mean squared error of the gain": float(np.sqrt(np.mean((means - gains) ** 2))),
        "standard deviation of the gain": float(gains.std()),
        "merges within the 90 % interval": fmean(inside),
        "merges on which it abstains": fmean(not prediction.is_known for prediction in predicted),
    }


def three_way(table: Table, split: Split) -> dict[str, float]:
    """Return mean accuracies, for choosing each triple's order and operators."""
    fixed = best_fixed(table, split.train)
    predictor = Predictor.fit(table.examples(split.train))
    rows = defaultdict(list)
    for triple, chains in table.triples.items():
        if not split.holds(triple):
            continue
        rows["random order and operators"].append(fmean(chains.values()))
        of_fixed = [value for (_, ops), value in chains.items() if set(ops) == {fixed}]
        rows[FIXED].append(fmean(of_fixed))
        rows[ORACLE].append(max(chains.values()))
        rows["predictor"].append(chosen_chain(table, predictor, triple, None))
        rows["  operators alone"].append(mean_over_orders(table, predictor, triple))
        rows["  order alone"].append(chosen_chain(table, predictor, triple, fixed))
    return {name: fmean(values) for name, values in rows.items()}


def chosen_chain(
    table: Table, predictor: Predictor, triple: tuple[str, ...], fixed: str | None
) -> float:
    """Return the accuracy of the chain predicted to be best, of one operator if it is given."""
    operators = [METHODS[name].label for name in ([fixed] if fixed else OPERATORS)]
    ranked = rank_chains(triple, operators, predictions(table, predictor, triple), 3)
    best = next(one.chain for one in ranked if len(one.chain.models) == 3)
    return measured(table, triple, best.models, best.operators)


def mean_over_orders(table: Table, predictor: Predictor, triple: tuple[str, ...]) -> float:
    """Return the accuracy of the best operators predicted for each order, mean over orders."""
    known = predictions(table, predictor, triple)
    labels = [METHODS[name].label for name in OPERATORS]
    found = []
    for last in triple:
        ranked = rank_chains(triple, labels, known, 3)
        best = next(
            one.chain
            for one in ranked
            if len(one.chain.models) == 3 and one.chain.models[2] == last
        )
        found.append(measured(table, triple, best.models, best.operators))
    return fmean(found)


def measured(
    table: Table, triple: tuple[str, ...], models: tuple[str, ...], labels: tuple[str, ...]
) -> float:
    """Return a chain's accuracy; its first two models commute."""
    operators = tuple(_LABELS[label] for label in labels)
    chains = table.triples[triple]
    for order in (models, (models[1], models[0], models[2])):
        if (order, operators) in chains:
            return chains[order, operators]
    raise KeyError(models)


def predictions(
    table: Table, predictor: Predictor, triple: tuple[str, ...]
) -> dict[tuple[str, str, str], Prediction]:
    """Return the predictions of all pairs of a triple on the triple's task."""
    keys = [(pair, o) for pair in permutations(triple, 2) for o in OPERATORS]
    merges = [table.merge(pair, o, own_task(triple)) for pair, o in keys]
    found = predictor.predict(merges)
    return {
        (*pair, METHODS[o].label): prediction
        for (pair, o), prediction in zip(keys, found, strict=True)
    }


def bandits(table: Table, split: Split) -> dict[str, dict[str, list[float]]]:
    """Return cumulative regret over rounds: game -> selector -> one number a round.

    In each round a pair, or a triple, of which a model was left out comes along.
    """
    fixed = best_fixed(table, split.train)
    test = [triple for triple in table.triples if split.holds(triple)]
    others = [triple for triple in table.triples if not split.holds(triple)]
    two = two_way_game(table, split.train, split.test, fixed)
    three = three_way_game(table, split.train, test, fixed)
    return {
        "Two-way": regrets(two, ["+".join(pair) for pair in split.train], seed=0),
        "Three-way": regrets(three, ["+".join(triple) for triple in others], seed=0),
    }


def closed_over_rounds(regret: Mapping[str, list[float]], start: float = 0.0) -> dict[str, float]:
    """Return the share of the gap closed over the rounds after a share `start` of them."""
    lost = {}
    for name, values in regret.items():
        first = int(start * len(values))
        lost[name] = values[-1] - (values[first - 1] if first else 0.0)
    return {name: 1 - value / lost[FIXED] for name, value in lost.items()}


@dataclass(frozen=True)
class Outcome:
    """All that one split gives."""

    two_way: dict[str, float]
    three_way: dict[str, float]
    quality: dict[str, float]
    regret: dict[str, dict[str, list[float]]]


def evaluate(work: tuple[Path, Split]) -> Outcome:
    """Evaluate one split."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table, split = Table(work[0]), work[1]
    return Outcome(
        two_way(table, split),
        three_way(table, split),
        quality(table, split),
        bandits(table, split),
    )


def shares(means: Mapping[str, float]) -> dict[str, float]:
    """Return the share of the gap that each selector closes."""
    fixed, oracle = means[FIXED], means[ORACLE]
    return {name: (value - fixed) / (oracle - fixed) for name, value in means.items()}


def print_rows(title: str, *columns: tuple[int, Sequence[Mapping[str, float]]]) -> None:
    """Print Markdown rows: mean and standard error over the splits, a column each.

    Args:
        title: Of the table.
        columns: Digits, and the numbers of each split.
    """
    print(f"\n{title}")
    for name in columns[0][1][0]:
        cells = (shown([row[name] for row in rows], digits) for digits, rows in columns)
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    work = [(arguments.table, split) for split in splits(Table(arguments.table))]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(evaluate, work))
    two, three = [o.two_way for o in found], [o.three_way for o in found]
    header = "accuracy | share of the gap closed"
    print_rows(f"Two-way: {header}", (3, two), (2, [shares(means) for means in two]))
    print_rows(f"Three-way: {header}", (3, three), (2, [shares(means) for means in three]))
    for title, rows, rival in (
        ("two-way", two, "random operator"),
        ("three-way", three, "random order and operators"),
    ):
        closed = [shares(means) for means in rows]
        more = [row["predictor"] - row[rival] for row in closed]
        print(f"\nPredictor less {rival}, {title}, paired: {shown(more)} of the gap")
    print_rows("Predicted gains, two-way", (3, [o.quality for o in found]))
    for title in found[0].regret:
        regret = [o.regret[title] for o in found]
        print_rows(
            f"Bandits, {title.lower()}: regret a round | gap closed | in the second half",
            (3, [{name: v[-1] / len(v) for name, v in row.items()} for row in regret]),
            (2, [closed_over_rounds(row) for row in regret]),
            (2, [closed_over_rounds(row, 0.5) for row in regret]),
        )
    if arguments.plot:
        bars = {"Two-way": [shares(m) for m in two], "Three-way": [shares(m) for m in three]}
        draw(bars, [o.regret["Two-way"] for o in found], arguments.plot)


if __name__ == "__main__":
    main()
