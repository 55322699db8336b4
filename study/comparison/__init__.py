"""Several searches of one spec, at equal budgets, over shared answers.

`variants` reads what is compared, `compare` searches and scores, `simulation` replays measured
seconds with any number of workers.
"""
