"""The study's database, and what lies beside it.

`connection` opens and finds studies; `ledger` writes trials, each change one transaction, into
Optuna's own tables, and `history` reads them incrementally. `locks` lets one worker at a time
claim a trial, `outages` waits while the database is away, `artifacts` keeps the answers.
"""

from .connection import (
    artifact_store,
    load_study,
    open_storage,
    state_dir,
    study_lock,
    wait_for_study,
)

__all__ = [
    "artifact_store",
    "load_study",
    "open_storage",
    "state_dir",
    "study_lock",
    "wait_for_study",
]
