"""The work of training, as a process of its own: `python -m studio.train JOB_DIR`.

`preflight` is what is checked before (light: no torch); `worker` is the run; `methods/` and `tuning/` hold one
file each; `engine/` is where speed lives.
"""
