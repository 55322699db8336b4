"""Parts of a large study's cost that are no commands: a repaint, a worker's first and next claim.

python scale_parts.py paint|claims SPEC
"""

import sys
import time

import optuna
import torch

from mergefront.samplers import SIPSampler
from mergefront.study.results.report.dashboard import paint
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from mergefront.study.storage.connection import load_study, study_lock
from mergefront.study.workers.claims import Claims


def main() -> None:
    """Print seconds, and those of CPU, by part, one a line."""
    part, path = sys.argv[1:]
    torch.set_num_threads(1)
    inputs = load_inputs(path)
    study = load_study(inputs.spec)
    if part == "paint":
        start = _now()
        paint(study, inputs.spec)
        _tell("repaint of the dashboard", start)
    else:
        _claims(study, inputs)


def _claims(study: optuna.Study, inputs: StudyInputs) -> None:
    space = study.get_trials(deepcopy=False)[-1].distributions
    study.sampler = SIPSampler(seed=0, search_space=space)
    claims = Claims(study, inputs.spec.study.trials, space)
    with study_lock(inputs.spec).hold() as connection:
        start = _now()
        claims.trials(connection)
        _tell("a worker's first look", start)
        start = _now()
        claims.trials(connection)
        _tell("its next look", start)
        for name in ("its first claim with a proposal", "its next claim"):
            start = _now()
            claims.claim(connection, {"worker": "scale"})
            _tell(name, start)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _tell(what: str, start: tuple[float, float]) -> None:
    seconds, of_cpu = (now - then for now, then in zip(_now(), start, strict=True))
    sys.stdout.write(f"{what} | {seconds:.2f} | {of_cpu:.2f}\n")


if __name__ == "__main__":
    main()
