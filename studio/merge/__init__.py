"""From several models to one: a recipe in mergekit's YAML, whose models may also be runs of the studio.

Read `job` for the order of work. `recipe` and `rules` say what was asked and whether it can be meant, `parents` where
each model lies, `checks` whether they fit together: none of them imports torch, so page and command line refuse early.
What computes is a process of its own, in `work`: mergekit, PEFT, and the models that answer rows. The child is a job's
model like that of a training.
"""
