"""A run on a cluster with Slurm: a script for sbatch, the process on the node, and the following of both.

The node writes into a folder of its own below the job's, on the file system that both share; the process here reads it,
asks Slurm how the job is, and brings what is new into the job's own files. So a list, a stop and a resume are those of
any run.
"""
