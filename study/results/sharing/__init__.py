"""What travels with a model that leaves a study. Internal.

`provenance` gathers what the model card says: values from the most to the least trustworthy,
parents with licences, the same merge for mergekit.
"""
