"""What a study's trials tell a sampler: parameters, measurements, questions, who is running.

`measurements` reads values, standard errors and questions of finished trials, whatever form they
are in; `equating` makes values of different questions comparable, and `questions` says how far
other questions' may lie from them; `search_space` is the way to the
unit cube and back.
"""
