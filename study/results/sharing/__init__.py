"""What travels with a model that leaves a study. Internal.

`card` writes the model card; `provenance` gathers what it says: values from the most to the least
trustworthy, parents with licences, the same merge for mergekit. `publish` and `manifest` send it.
"""
