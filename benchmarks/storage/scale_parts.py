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
    """Print seconds by part, one a line."""
    part, path = sys.argv[1:]
    torch.set_num_threads(1)
    inputs = load_inputs(path)
    study = load_study(inputs.spec)
    if part == "paint":
        _tell("repaint of the dashboard", time.perf_counter(), paint(study, inputs.spec))
    else:
        _claims(study, inputs)


def _claims(study: optuna.Study, inputs: StudyInputs) -> None:
    space = study.get_trials(deepcopy=False)[-1].distributions
    study.sampler = SIPSampler(seed=0, search_space=space)
    claims = Claims(study, inputs.spec.study.trials, space)
    with study_lock(inputs.spec).hold() as connection:
        start = time.perf_counter()
        claims.trials(connection)
        _tell("a worker's first look", start)
        for _ in range(3):
            start = time.perf_counter()
            claims.trials(connection)
            _tell("its next look", start)
        start = time.perf_counter()
        claims.claim(connection, {"worker": "scale"})
        _tell("a claim with its proposal", start)


def _tell(what: str, start: float, done: object = None) -> None:
    sys.stdout.write(f"{what} | {time.perf_counter() - start:.2f}\n")


if __name__ == "__main__":
    main()
