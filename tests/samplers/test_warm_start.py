"""What earlier studies tell a search."""

from dataclasses import asdict, replace
from typing import Literal

import numpy as np
import optuna
import pytest
import torch
from scipy.optimize import approx_fprime

from mergefront.samplers import SIPSampler, Source, keep, recommend
from mergefront.samplers._gp import Elsewhere, Kernel, Process
from mergefront.samplers._gp.fit import Column, _Objective
from mergefront.samplers._gp.priors import Priors
from mergefront.samplers._transfer.depth import carried
from mergefront.samplers._transfer.kept import hints_of, kept
from mergefront.samplers._trials.search_space import UnitCube
from mergefront.samplers.denoise import fit_study

WAYS: list[Literal["maximize", "minimize"]] = ["maximize", "minimize"]
EFFECTS = np.array([0.0, 3.0, 0.0, -2.0, 0.0, 0.0, 1.0, 0.0])


def _names(n: int, rest: str = "") -> list[str]:
    return [f"layer_{k:03d}{rest}" for k in range(n)]


def _study(effects: np.ndarray, n: int = 30, seed: int = 0, sign: float = 1.0) -> optuna.Study:
    """Return a study of a linear objective and its square root, measured with errors of .1."""
    study = optuna.create_study(directions=WAYS, study_name=f"of {seed}")
    weight = optuna.distributions.FloatDistribution(0.0, 1.0)
    rng = np.random.default_rng(seed)
    names = _names(len(effects))
    for x in rng.uniform(size=(n, len(effects))):
        noise = rng.normal(size=2) * 0.1
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(names, x.tolist(), strict=True)),
                distributions=dict.fromkeys(names, weight),
                values=[sign * float(x @ effects) + noise[0], float(x.sum()) + noise[1]],
                user_attrs={"standard_errors": [0.1, 0.1]},
            )
        )
    return study


def test_layers_are_matched_by_relative_depth() -> None:
    same, kept_columns = carried(_names(4), _names(4))
    assert torch.equal(same, torch.eye(4, dtype=torch.double))
    assert kept_columns == [0, 1, 2, 3]
    deeper, _ = carried(_names(3), _names(2))  # the middle one of three lies in both halves
    assert deeper.T.flatten().tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3])
    shallower, _ = carried(_names(2), _names(4))
    assert shallower.T.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_parts_of_layers_stand_for_layers_and_others_go_by_name() -> None:
    parts = [*_names(2, ".attention"), *_names(2, ".mlp"), "head"]
    mapped, kept_columns = carried(parts, ["embeddings", *_names(2), "head"])
    assert kept_columns == [1, 2, 3]  # nothing here stands for the embeddings
    assert mapped.T.tolist() == [[0.5, 0, 0.5, 0, 0], [0, 0.5, 0, 0.5, 0], [0, 0, 0, 0, 1]]


def test_experts_go_by_their_numbers_and_are_no_layers() -> None:
    both = [name for k in (1, 2) for name in _names(2, f"@{k}")]
    for there in (["uniform@1", "uniform@2"], ["embeddings@1", "embeddings@2"]):
        assert carried(both, there)[1] == []
        assert carried(there, there[::-1])[0].tolist() == [[0, 1], [1, 0]]
    mapped, kept_columns = carried(_names(2, ".mlp@2"), both)
    assert kept_columns == [2, 3]  # nothing of the first expert
    assert torch.equal(mapped, torch.eye(2, dtype=torch.double))
    assert carried(_names(2), both)[1] == [0, 1, 2, 3]  # there is one expert here, perhaps either


def _hint(generator: torch.Generator) -> Elsewhere:
    X = torch.rand(6, 2, generator=generator, dtype=torch.double)
    process = Process(
        X=X,
        y=X.sum(1),
        noise=torch.full((6,), 0.1, dtype=torch.double),
        location=0.0,
        spread=1.0,
        kernel=Kernel(torch.ones(2, dtype=torch.double), torch.zeros((2, 0), dtype=torch.long)),
        mean=0.2,
    )
    mapped = torch.rand(4, 2, generator=generator, dtype=torch.double)
    return Elsewhere(mapped, torch.full((2,), 0.1, dtype=torch.double), process)


def test_gradient_with_a_hint() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(20, 4, generator=generator, dtype=torch.double)
    y = torch.sin(3 * X[:, 3])
    column = Column(
        X=X,
        y=(y - y.mean()) / y.std(),
        noise=torch.full((20,), 0.05, dtype=torch.double),
        location=0.0,
        spread=1.0,
        known_noise=True,
        importance=None,
        jumps=torch.tensor([[0, 1, 2], [1, 2, 3]]),
        hints=(_hint(generator), _hint(generator)),
    )
    objective = _Objective(column, Priors())
    packed = np.append(np.random.default_rng(0).normal(size=8) * 0.3, [0.4, 0.5, 0.2, -0.3])
    expected = approx_fprime(packed, lambda v: objective(v)[0], 1e-6)
    assert objective(packed)[1] == pytest.approx(expected, abs=1e-3)


def test_a_right_source_is_relied_on_and_a_wrong_one_is_not() -> None:
    right, wrong = Source.of(_study(EFFECTS)), Source.of(_study(np.roll(EFFECTS, 2), seed=1))
    errors, reliances = {}, {}
    for name, source in (("none", None), ("right", right), ("wrong", wrong)):
        study = _study(EFFECTS, n=12, seed=2)
        keep(study, [source] if source else [])
        model = fit_study(study)
        assert model is not None
        X = torch.rand(200, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        truth = X @ torch.from_numpy(EFFECTS)
        errors[name] = float((model.surrogate.means(X)[:, 0] - truth).square().mean().sqrt())
        reliances[name] = sum(model.surrogate.fits[0].process.kernel.reliances)
    assert errors["right"] < 0.5 * errors["none"]
    assert errors["wrong"] < 1.2 * errors["none"]
    assert reliances["none"] == 0
    assert reliances["wrong"] < 0.5 < reliances["right"]


def test_what_is_kept_with_a_study_is_what_was_read() -> None:
    source, study = Source.of(_study(EFFECTS)), _study(EFFECTS, n=3, seed=2)
    keep(study, [source])
    keep(study, [replace(source, study="another")])  # the first stays: workers agree
    assert kept(study) == [source]
    cube = UnitCube(study.trials[0].distributions)
    ((hint,), (_,)) = hints_of(study, cube)
    model = fit_study(_study(EFFECTS))
    assert model is not None
    process = model.surrogate.fits[0].process
    X = torch.rand(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    expected = (process.means(X) - process.location) / process.spread - process.mean
    assert hint.mean(X).tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_objectives_are_matched_by_name() -> None:
    earlier, study = _study(EFFECTS), optuna.create_study(directions=WAYS[::-1])
    study.add_trials(_study(EFFECTS, n=3, seed=2).trials)
    earlier.set_metric_names(["accuracy", "tokens"])
    study.set_metric_names(["memory", "accuracy"])
    keep(study, [Source.of(earlier)])
    memory, accuracy = hints_of(study, UnitCube(study.trials[0].distributions))
    assert len(memory) == 0
    assert len(accuracy) == 1


@pytest.mark.parametrize("names", [None, ["accuracy", "tokens"]])
def test_an_objective_of_the_other_direction_tells_nothing(names: list[str] | None) -> None:
    earlier = _study(EFFECTS)
    study = optuna.create_study(directions=["maximize", "maximize"])
    if names:
        earlier.set_metric_names(names)
        study.set_metric_names(names)
    study.add_trials(_study(EFFECTS, n=3, seed=2).trials)
    keep(study, [Source.of(earlier)])
    first, second = hints_of(study, UnitCube(study.trials[0].distributions))
    assert (len(first), len(second)) == (1, 0)


def test_sources_that_were_kept_without_directions_are_read() -> None:
    source = Source.of(_study(EFFECTS))
    told = asdict(source)
    for objective in told["objectives"]:
        del objective["direction"]
    assert Source.parse(told).shared(["a", "b"], ["minimize", "minimize"]) == ["a", "b"]


def test_a_source_that_shares_no_objective_is_refused_at_the_first_trial() -> None:
    earlier = _study(EFFECTS)
    earlier.set_metric_names(["accuracy", "tokens"])
    study = optuna.create_study(sampler=SIPSampler(warm_start=[earlier]))
    study.set_metric_names(["loss"])
    says = "objectives maximize accuracy, minimize tokens, and this one minimize loss: one at"
    with pytest.raises(ValueError, match=says):
        study.ask().suggest_float("layer_000", 0, 1)


def test_a_warm_started_search_finds_more_at_once() -> None:
    gained = []
    for seed in range(3):
        found = []
        for earlier in ([], [_study(EFFECTS, n=40, seed=10 + seed)]):
            sampler = SIPSampler(seed=seed, n_startup_trials=4, warm_start=earlier)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            rng = np.random.default_rng(seed)
            for _ in range(8):
                trial = study.ask()
                x = np.array([trial.suggest_float(name, 0, 1) for name in _names(8)])
                trial.set_user_attr("standard_errors", [0.1])
                study.tell(trial, float(x @ EFFECTS + 0.1 * rng.normal()))
            found.append(
                max(float(np.dot(list(t.params.values()), EFFECTS)) for t in study.trials)
            )
            assert recommend(study)
        gained.append(found[1] - found[0])
    assert np.mean(gained) > 0.5


def test_a_study_without_trials_tells_nothing() -> None:
    empty = optuna.create_study(study_name="empty")
    with pytest.raises(ValueError, match="studies with measured trials, but study 'empty'"):
        SIPSampler(warm_start=[empty])
    chosen = optuna.create_study(study_name="chosen")
    chosen.optimize(lambda trial: trial.suggest_categorical("a", [1, 2]), n_trials=2)
    with pytest.raises(ValueError, match="share numeric parameters"):
        SIPSampler(warm_start=[chosen])


@pytest.mark.parametrize("bounds", [(0.0, 2.0), (-0.5, 1.5), (0.2, 0.8)])
def test_weights_are_carried_not_their_place_between_the_bounds(
    bounds: tuple[float, float],
) -> None:
    source, study = Source.of(_study(EFFECTS)), _study(EFFECTS, n=3, seed=2)
    rng, names = np.random.default_rng(3), _names(8)
    wide = dict.fromkeys(names, optuna.distributions.FloatDistribution(*bounds))
    rows = [dict(zip(names, x.tolist(), strict=True)) for x in rng.uniform(0.2, 0.8, (4, 8))]
    cubes = UnitCube(study.trials[0].distributions), UnitCube(wide)
    labels = [None, None]
    told = [source.hints(cube, labels, WAYS)[0] for cube in cubes]
    assert told[0] is not None and told[1] is not None
    plain = told[0].mean(cubes[0].encode(rows)).tolist()
    assert told[1].mean(cubes[1].encode(rows)).tolist() == pytest.approx(plain)


def test_choices_with_numbers_are_no_layers() -> None:
    source = Source.of(_study(EFFECTS))
    bits = optuna.distributions.CategoricalDistribution(["int8", "int4"])
    space = {f"block_{k}": optuna.distributions.FloatDistribution(0.0, 1.0) for k in range(4)}
    cube = UnitCube({**space, "precision_0": bits, "precision_1": bits})
    (hint, _) = source.hints(cube, [None, None], WAYS)
    assert hint is not None
    row = {**dict.fromkeys(space, 0.3), "precision_0": "int8", "precision_1": "int4"}
    same = UnitCube(_study(EFFECTS, n=1).trials[0].distributions)
    (plain, _) = source.hints(same, [None, None], WAYS)
    assert plain is not None
    expected = plain.mean(same.encode([dict.fromkeys(_names(8), 0.3)]))
    assert hint.mean(cube.encode([row])).tolist() == pytest.approx(expected.tolist())


def test_choices_get_no_hint() -> None:
    study = _study(EFFECTS, n=3, seed=2)
    space = {**study.trials[0].distributions}
    space["operator"] = optuna.distributions.CategoricalDistribution(["a", "b"])
    cube = UnitCube(space)
    keep(study, [Source.of(_study(EFFECTS))])
    ((hint,), _) = hints_of(study, cube)
    row = dict.fromkeys(_names(8), 0.3)
    A = cube.encode([{**row, "operator": "a"}, {**row, "operator": "b"}])
    first, second = hint.mean(A).tolist()
    assert first == pytest.approx(second)
