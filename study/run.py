"""From a valid spec to a finished study."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import optuna

from ..errors import STOPPED, StudyError
from ..objectives import MergeObjective, questions_of
from ..objectives.evaluation import Backend
from ..objectives.evaluation.backends.transformers_backend import TransformersBackend
from ..objectives.evaluation.backends.vllm_backend import VllmBackend
from ..objectives.evaluation.backends.vllm_memory import EngineSettings
from ..objectives.evaluation.cache import AnswerCache
from ..samplers import ArmSampler, BMMSampler, MoeadCmaesSampler, PerTrialSampler, SIPSampler
from .first_trials import same_models, search_space
from .seeding import BUDGET, FINGERPRINT, check_same_study, created, importance_of
from .spec.inputs import StudyInputs
from .spec.search import BMM_PRESETS
from .spec.study_spec import StudySpec
from .storage.connection import state_dir, wait_for_study
from .storage.outages import through_outages, unless_away
from .workers.devices import VISIBLE, claim_devices, machines_folder
from .workers.devices import names as device_names
from .workers.room import check_room
from .workers.termination import undisturbed
from .workers.worker import Reporter, SilentReporter, Timings, Worker

_TICK_SECONDS = 0.5
# What an orphan of a worker keeps open is not waited for.
_LAST_WORDS_SECONDS = 5.0

# Tokens of each answer before anything is timed.
_WARM_UP = 8
_OPTUNA_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=0),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=0),
    # Optuna's default, 50, makes most of a study its first, random generation.
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(population_size=8, seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def make_sampler(inputs: StudyInputs, study: optuna.Study) -> optuna.samplers.BaseSampler:
    """Return the sampler that the spec's preset names.

    Every preset proposes the same for the same seed, trial number and history.
    """
    spec = inputs.spec
    preset, seed = spec.sampler.preset, spec.study.seed
    space, n_first = search_space(spec, inputs.plan), spec.sampler.n_startup_trials
    if preset in BMM_PRESETS:
        return BMMSampler(
            spec.sampler.bmm,
            importance=importance_of(study),
            n_startup_trials=n_first,
            seed=seed,
            search_space=space,
        )
    if preset == "moead-cmaes":
        return MoeadCmaesSampler(n_startup_trials=n_first, seed=seed, search_space=space)
    arms = [inputs.plan.arm_params(place) for place in range(len(inputs.plan.arms))]
    if preset not in ("mergefront", "qnehvi"):
        make = _OPTUNA_SAMPLERS.get(preset, _OPTUNA_SAMPLERS["random"])
        per_trial = PerTrialSampler(make, seed)
        return ArmSampler(per_trial, arms) if arms else per_trial
    return SIPSampler(
        importance=importance_of(study) if preset == "mergefront" else None,
        acquisition="knowledge-gradient" if preset == "mergefront" else "qlognehvi",
        n_startup_trials=n_first,
        seed=seed,
        trust=spec.importance.trust,
        search_space=space,
        arms=arms or None,
        same=same_models(inputs.plan),
        # One model answers the same questions alike: seeds are the questions' own.
        repeats=bool(spec.evaluation.rotate) or spec.is_timed,
    )


def make_objective(
    inputs: StudyInputs, split: str = "search", devices: Sequence[int] = ()
) -> MergeObjective:
    """Load the models and return the objective over one split's questions.

    Args:
        inputs: A valid spec with its models and tasks.
        split: Of the questions.
        devices: GPUs to use, among the visible ones. Defaults to none: the engine chooses.
    """
    spec = inputs.spec
    questions = questions_of(inputs.split(split), split)
    backend = _make_backend(spec, devices)
    backend.load(inputs.models)
    if spec.is_timed:  # the first batch compiles and allocates: no candidate should pay for that
        first = [q for q in questions if q.kind == "generated"][: spec.evaluation.together]
        short = replace(
            first[0].sampling or inputs.sampling,
            max_new_tokens=min(_WARM_UP, spec.evaluation.max_new_tokens),
        )
        backend.generate([asked.question.prompt for asked in first], short)
    return MergeObjective(
        backend,
        inputs.plan,
        questions,
        spec.measured,
        inputs.sampling,
        spec.merge.bounds,
        spec.limits,
        _make_cache(inputs),
        inputs.recipe.model_bytes if spec.is_sized else None,
    )


def _make_cache(inputs: StudyInputs) -> AnswerCache | None:
    """Open the file of answers that the spec asks for; beside the study if it names none."""
    cache = inputs.spec.evaluation.cache
    if not cache or inputs.spec.is_timed:  # an answer that is kept takes the time of another run
        return None
    path = state_dir(inputs.spec) / "answers.db" if cache is True else Path(cache)
    return AnswerCache(path, inputs.answer_scope())


def _make_backend(spec: StudySpec, devices: Sequence[int]) -> Backend:
    if spec.evaluation.backend == "transformers":
        device = f"cuda:{devices[0]}" if devices else None
        return TransformersBackend(spec.evaluation.batch_size, device)
    if devices:  # vLLM takes what it sees
        visible = device_names(max(devices) + 1)
        os.environ[VISIBLE] = ",".join(visible[index] for index in devices)
    return VllmBackend(EngineSettings(**spec.evaluation.engine.model_dump()))


def work(
    inputs: StudyInputs, reporter: Reporter | None = None, wait_seconds: float = 0.0
) -> Timings:
    """Run one worker of an existing study in this process until the budget is complete.

    Args:
        inputs: What the study was made of.
        reporter: Told of every step.
        wait_seconds: How long to wait for the database, and for somebody to create the study.

    Raises:
        StudyError: If the study does not exist, or its trials keep failing.
    """
    study = wait_for_study(inputs.spec, wait_seconds, FINGERPRINT)
    through_outages(lambda: _remember_budget(study, inputs.spec))
    with devices_of(inputs.spec) as devices:
        objective = make_objective(inputs, devices=devices)
        worker = through_outages(lambda: _make_worker(study, inputs, objective, reporter))
        worker.run()
    return worker.timings


def _remember_budget(study: optuna.Study, spec: StudySpec) -> None:
    """Keep the number of trials asked for, so that `status` knows it wherever it looks."""
    if study.user_attrs.get(BUDGET) != spec.study.trials:
        study.set_user_attr(BUDGET, spec.study.trials)


def devices_of(spec: StudySpec) -> AbstractContextManager[tuple[int, ...]]:
    """Hold as many GPUs as the spec's engine takes, that no other process of this machine has.

    Processes of this machine find each other in its temporary folder, containers in the folder of
    all studies' state.
    """
    vllm = spec.evaluation.backend == "vllm"
    n = spec.evaluation.engine.tensor_parallel_size if vllm else 1
    return claim_devices(state_dir(spec).parent / ".gpus", n, also=machines_folder())


def _make_worker(
    study: optuna.Study, inputs: StudyInputs, objective: MergeObjective, reporter: Reporter | None
) -> Worker:
    check_same_study(study, inputs)
    study.sampler = make_sampler(inputs, study)
    return Worker(study, inputs, objective, reporter or SilentReporter())


def run(inputs: StudyInputs, reporter: Reporter | None = None) -> Timings:
    """Create the study, or resume it, and finish its budget with one worker.

    Raises:
        StudyError: If a study of this name has other settings, its trials keep failing, or the
            disk is full.
    """
    check_room(inputs.spec)
    return work(created(inputs), reporter)


def run_many(
    spec: StudySpec,
    commands: Sequence[Sequence[str]],
    said: Callable[[str], None] = lambda line: None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Finish an existing study with several worker processes on this machine.

    The workers have no terminal: only the caller draws, so they cannot garble each other.

    Args:
        spec: Of the study.
        commands: For each worker, the arguments of `mergefront` that start it.
        said: Called with each whole line that a worker writes to stderr, from a thread per worker.
        tick: Called about twice a second while they run.

    Raises:
        StudyError: If a worker stopped with an error.
    """
    start = [sys.executable, "-m", "mergefront"]
    # Not as an argument: a URL may hold a password, and anybody can read arguments.
    environment = {**os.environ, "MERGEFRONT_STORAGE": spec.study.storage}
    with undisturbed():  # inherited: Ctrl-C is ours alone, and the workers end in good order
        processes = [
            subprocess.Popen(
                [*start, *command],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            for command in commands
        ]
    listeners = [Thread(target=_relay, args=(p.stderr, said), daemon=True) for p in processes]
    for listener in listeners:
        listener.start()
    try:
        while any(process.poll() is None for process in processes):
            unless_away(tick)
            time.sleep(_TICK_SECONDS)
    except BaseException:
        with undisturbed():
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
        raise
    finally:
        for listener in listeners:
            listener.join(_LAST_WORDS_SECONDS)
    codes = [p.returncode for p in processes if p.returncode not in (0, STOPPED)]
    if codes:
        raise StudyError(
            f"{len(codes)} of {len(commands)} workers of study {spec.study.name!r} "
            f"{_why(codes)} Start the study again: it resumes, or says that it is complete."
        )


def _why(codes: Sequence[int]) -> str:
    """Return how workers ended, by what their processes returned: a signal is negative."""
    killed = sorted({_signal_name(-code) for code in codes if code < 0})
    if not killed:
        return "stopped with an error, shown above. Fix the cause."
    memory = " (often because no memory was left)" if "SIGKILL" in killed else ""
    others = ", or stopped with an error, shown above" if max(codes) > 0 else ""
    return f"were killed by {', '.join(killed)}{memory}{others}."


def _signal_name(number: int) -> str:
    """Return `SIGKILL` of 9; real-time signals have no name."""
    known = {one.value: one.name for one in signal.Signals}
    return known.get(number, f"signal {number}")


def _relay(lines: Iterable[str] | None, said: Callable[[str], None]) -> None:
    for line in lines or ():
        said(line.rstrip("\n"))
