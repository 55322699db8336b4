"""What a study would do, told from its spec, configurations and headers alone."""

import math
import os
from collections import Counter
from dataclasses import astuple
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import torch

from ..objectives import ScoredQuestion, questions_of
from ..objectives.checkpoints import is_tied
from ..objectives.checkpoints.outline import outline_model
from ..objectives.evaluation import SPLITS
from ..objectives.evaluation.backends.vllm_memory import EngineSettings, Need, check_memory, needed
from ..objectives.evaluation.clusters import Components
from ..objectives.evaluation.paired import DISAGREEMENT, visible_difference
from ..samplers import MEASURED
from .budget import UNLIMITED, known
from .first_trials import first_trials
from .importance import check_importance
from .opening import planned_inputs
from .readiness import check_ready, differences, same_weights
from .results.status import price_of, quoted
from .seeding import check_same_settings, check_same_study
from .spec.hashing import known_hash
from .spec.inputs import StudyInputs
from .spec.merge import arms_of
from .spec.study_spec import StudySpec
from .storage.connection import NoStudyYetError, load_study
from .warm_start import warm_start
from .workers.room import check_room

_GIB = 1 << 30
_KINDS = {
    "generated": "",
    "compared": ", by likelihoods: nothing is generated",
    "read": ", texts that are read: nothing is generated",
}
# A difference of accuracies that a search should be able to see.
_COARSE = 0.1


def plan_study(spec: StudySpec) -> list[tuple[str, str]]:
    """Check a spec with all it names, and return what it would do, as titles and texts.

    Nothing is created; weights are read as far as those of two models are the same. Of models that
    are not on this machine the configuration, the tokenizer and the headers of the weights are
    fetched.

    Raises:
        SpecError: At the first thing that is missing or does not fit.
        EvaluationError: If GPUs of this machine cannot hold a model.
        StudyError: If the study exists, with other settings, or the disk has no room for results.
    """
    with TemporaryDirectory() as folder:
        inputs, is_even = planned_inputs(spec, partial(outline_model, into=Path(folder)))
        warning = inputs.greedy_warning
        check_ready(inputs)
        check_importance(inputs)
        check_room(spec)
        study = _existing(inputs)
        sources = warm_start(inputs, study)
        return [
            ("models", _models(inputs)),
            *(("parents differ", line) for line in differences(inputs)),
            ("search", _search(inputs, is_even)),
            ("trials", _trials(inputs)),
            *(("warm start", line) for line in sources),
            ("questions", _questions(inputs)),
            ("answers", _answers(inputs)),
            ("price", _price(spec)),
            ("visible", _visible(inputs)),
            ("decoding", inputs.decoding),
            *_repeats(inputs),
            ("memory", _memory(inputs)),
            *([("warning", warning)] if warning else []),
            *(("warning", line) for line in same_weights(inputs)),
            *_few_trials(inputs),
        ]


def _existing(inputs: StudyInputs) -> optuna.Study | None:
    """Return the study, if it is there; refuse what `run` would refuse.

    Weights that were never read, or changed since, are not read for that.
    """
    try:
        study = load_study(inputs.spec)
    except NoStudyYetError:
        return None
    if all(map(known_hash, [inputs.base, *inputs.experts])):
        check_same_study(study, inputs)
    else:
        check_same_settings(study, inputs, inputs.settings_print())
    return study


def _models(inputs: StudyInputs) -> str:
    config, dtype = inputs.base.config, inputs.spec.models.dtype
    names = config.get("architectures") or [config.get("model_type", "unknown")]
    n = sum(math.prod(shape) for shape in inputs.base.shapes().values())
    size = n * getattr(torch, dtype).itemsize
    head = "tied head" if is_tied(inputs.base) else "a head of its own"
    return (
        f"1 base and {len(inputs.experts)} expert(s): {names[0]}, {inputs.plan.n_layers} layers, "
        f"{head}, {len(inputs.base.layout)} tensors, {_count(n)} parameters, {_size(size)} in "
        f"{dtype} each"
    )


def _search(inputs: StudyInputs, is_even: bool) -> str:
    names, (low, high) = inputs.plan.parameter_names, inputs.spec.merge.bounds
    shown = names if len(names) <= 3 else [names[0], "...", names[-1]]
    return (
        f"{len(names)} variables ({' '.join(shown)}), weights from {low:g} to {high:g}, operator "
        f"{_operators(inputs)}, granularity {inputs.spec.merge.granularity}"
        f"{_blocks(inputs, is_even)}{_precision(inputs)}"
    )


def _precision(inputs: StudyInputs) -> str:
    """Return the precision, or those that are searched, with what a whole model takes in each."""
    precision = inputs.plan.settings.precision
    if precision is None:
        return ""
    sizes = ", ".join(f"{name} {_size(n)}" for name, n in inputs.recipe.sizes.items())
    if not precision.names:
        return f", linear layers rounded: {sizes} as served"
    n = precision.groups
    told = f"each of {n} groups of layers" if n > 1 else "all layers together"
    return f", precision searched for {told}: {sizes} as served"


def _operators(inputs: StudyInputs) -> str:
    """Return the operator, or those to choose from with what they merge."""
    if not inputs.plan.arms:
        return inputs.plan.settings.operator
    arms, left_out = arms_of(inputs.spec.models, inputs.spec.merge)
    experts = {arm.label: [a.experts_label for a in arms if a.label == arm.label] for arm in arms}
    merged = ", ".join(f"{name} of {' '.join(numbers)}" for name, numbers in experts.items())
    missing = f"; left out: {'; '.join(left_out)}" if left_out else ""
    return f"searched: {len(arms)} choices ({merged}){missing}"


def _blocks(inputs: StudyInputs, is_even: bool) -> str:
    starts = inputs.plan.settings.blocks
    if is_even:
        return f": {len(starts)} blocks, measured when the study is created"
    return f": blocks from layers {' '.join(map(str, starts))}" if starts else ""


def _trials(inputs: StudyInputs) -> str:
    spec = inputs.spec
    begun = first_trials(spec, inputs.plan)[: spec.study.trials]
    phases = Counter(t.user_attrs["phase"] for t in begun)
    titles = {"parent": "parent", "uniform": "uniform merge", "startup": "start-up point"}
    first = [f"{n} {titles[phase]}{'s' * (n > 1)}" for phase, n in phases.items()]
    if spec.study.trials == UNLIMITED:
        paid = _paid(inputs)
        return f"as many as the budget allows{paid}: {', '.join(first)}, then proposals"
    left = spec.study.trials - sum(phases.values())
    more = min(left, max(0, (spec.evaluation.baseline or 0) - phases["uniform"]))
    first += [f"{more} more where the uniform curve bends"] if more else []
    left -= more
    first += [f"{left} proposed by {spec.sampler.preset}"] if left > 0 else []
    return f"{spec.study.trials}: {', '.join(first)}"


def _questions(inputs: StudyInputs) -> str:
    tasks = []
    for task in inputs.tasks:
        counts = [f"{len(task.splits[name])} {name}" for name in SPLITS if name in task.splits]
        tasks.append(f"{task.name}: {', '.join(counts)}{_KINDS[task.kind]}")
    return "; ".join(tasks)


def _asked(inputs: StudyInputs) -> list[ScoredQuestion]:
    """Return the search questions; texts are no questions."""
    return [q for q in questions_of(inputs.tasks, "search") if q.kind != "read"]


def _visible(inputs: StudyInputs) -> str:
    """Return the smallest difference that the questions show, and whether that is much."""
    asked = _asked(inputs)
    if not asked:
        return "nothing is asked: texts are read, and differ exactly"
    n = len({(q.task, q.question.cluster or q.question.id) for q in asked})
    smallest = visible_difference(n)
    few = "; too few to tell models of a front apart" if smallest > _COARSE else ""
    if smallest >= 1:
        return f"no difference of accuracies: {n} independent questions are too few to tell any"
    return (
        f"accuracies that differ by {smallest:.3f} or more (80 % power, 5 % level, {n} "
        f"independent questions of which two models disagree on {DISAGREEMENT:.0%}){few}"
    )


def _answers(inputs: StudyInputs) -> str:
    asked, spec = _asked(inputs), inputs.spec
    rotation = spec.evaluation.rotation([scored.task for scored in asked], spec.study.seed)
    dealt = f", dealt from {rotation.n_pool} questions" if rotation else ""
    (n, most), trials = _at_most(inputs), spec.study.trials
    if trials == UNLIMITED:
        return f"{n} a candidate{dealt}, {_count(most)} tokens at most"
    return (
        f"{n} a candidate{dealt}, {_count(most)} tokens at most; {n * trials} in all, "
        f"{_count(most * trials)} tokens at most"
    )


def _at_most(inputs: StudyInputs) -> tuple[int, int]:
    """Return how many answers a candidate gives, and how many tokens they have at most."""
    asked, spec = _asked(inputs), inputs.spec
    drawn = [q.sampling or inputs.sampling for q in asked]
    rotation = spec.evaluation.rotation([scored.task for scored in asked], spec.study.seed)
    share = rotation.n_asked / len(asked) if rotation else 1.0
    most = sum(sampling.repeats * sampling.max_new_tokens for sampling in drawn)
    return round(share * sum(sampling.repeats for sampling in drawn)), round(share * most)


def _paid(inputs: StudyInputs) -> str:
    """Return how many candidates a budget of tokens pays for in any case."""
    tokens, (_, most) = inputs.spec.ends.tokens, _at_most(inputs)
    return "" if tokens is None or most == 0 else f", {int(tokens // most)} in any case"


def _few_trials(inputs: StudyInputs) -> list[tuple[str, str]]:
    """Return a warning where there are more choices of operator and experts than trials."""
    trials, n_arms = known(inputs.spec.study.trials), len(inputs.plan.arms)
    n_parents = inputs.plan.settings.n_experts + 1
    if trials is None or trials - n_parents >= n_arms:
        return []
    left = max(0, trials - n_parents)
    told = f"{n_arms} choices of operator and experts, but after the parents {left} trials: some "
    return [("warning", f"{told}are never measured. Raise study.trials, or list fewer")]


def _price(spec: StudySpec) -> str:
    """Return what the study will use, from the trials that it has already."""
    try:
        study = load_study(spec)
    except NoStudyYetError:
        return "quoted after the first trials, here and by `mergefront status`"
    trials = study.get_trials(deepcopy=False)
    measured = sum(trial.state in MEASURED for trial in trials)
    left = max(0, spec.ends.expected_trials(trials, spec.study.trials) - measured)
    parts = [f"{title} {text}" for title, text in quoted(price_of(trials, spec, left))]
    return "; ".join(parts) or "quoted after two trials"


def _repeats(inputs: StudyInputs) -> list[tuple[str, str]]:
    """Return what repeats bring, from the variances of parents and uniform merges so far."""
    try:
        trials = load_study(inputs.spec).get_trials(deepcopy=False)
    except NoStudyYetError:
        return []
    found = [t.user_attrs["variances"] for t in trials if "variances" in t.user_attrs]
    n, repeats = len(_asked(inputs)), inputs.sampling.repeats
    lines = []
    for name in inputs.spec.metric_names if repeats > 1 else ():
        parts = [Components(*each[name]) for each in found if name in each]
        if parts:
            mean = Components(
                *(sum(x) / len(parts) for x in zip(*map(astuple, parts), strict=True))
            )
            lines.append(
                f"{name} ± {mean.error(n, repeats):.3g} with {n} questions x {repeats}, "
                f"± {mean.error(n * repeats, 1):.3g} with {n * repeats} x 1"
            )
    return [("repeats", f"for as many answers: {'; '.join(lines)}")] if lines else []


def _memory(inputs: StudyInputs) -> str:
    evaluation = inputs.spec.evaluation
    missing = ""
    if evaluation.backend == "vllm":
        missing = "" if find_spec("vllm") else "; vLLM is not installed here"
        settings = EngineSettings(**evaluation.engine.model_dump())
        need, n_models = needed(inputs.models, settings), 1
        check_memory(inputs.models, settings, _smallest_gpu())
    else:
        length = EngineSettings(max_model_len=evaluation.max_new_tokens)
        need, n_models = needed(inputs.models, length), 2 + len(inputs.experts)
    return f"{_needed(need, n_models, inputs)}; {_machine()}{missing}"


def _needed(need: Need, n_models: int, inputs: StudyInputs) -> str:
    evaluation = inputs.spec.evaluation
    vllm = n_models == 1
    at_once = evaluation.engine.max_num_seqs if vllm else evaluation.together
    holder = "each GPU" if vllm else "one device"
    models = "the live model" if vllm else f"{n_models} models"
    return (
        f"{holder} holds {_size(n_models * need.weights)} of weights ({models}) and the keys and "
        f"values of at most {at_once} answers, each {_size(need.cache())} at "
        f"{need.tokens} tokens"
    )


def _machine() -> str:
    main = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = [_size(_total(index)) for index in range(torch.cuda.device_count())]
    shown = f"GPUs of {', '.join(gpus)}" if gpus else "no GPU"
    return f"this machine has {shown} and {_size(main)} of main memory"


def _count(n: float) -> str:
    for unit, letter in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if n >= unit:
            return f"{n / unit:.3g}{letter}"
    return f"{n:.0f}"


def _size(n_bytes: float) -> str:
    if n_bytes >= _GIB:
        return f"{n_bytes / _GIB:.3g} GiB"
    return f"{n_bytes / (1 << 20):.3g} MiB"


def _total(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).total_memory)


def _smallest_gpu() -> int | None:
    n = torch.cuda.device_count()
    return min(_total(index) for index in range(n)) if n else None
