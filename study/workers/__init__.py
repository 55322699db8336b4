"""Many hands on one study: how a trial is claimed, measured and delivered exactly once.

`Worker` is the loop. `claims` decides who works on what, under the study's lock; `proposals` lets
the sampler propose without writing. `liveness` tells the living from the dead, `spool` keeps a
result on disk until the database has it, `termination` ends a worker in good order.
docs/design/0006-worker-protocol.md explains why.
"""

from .worker import Reporter, SilentReporter, Timings, Worker

__all__ = ["Reporter", "SilentReporter", "Timings", "Worker"]
