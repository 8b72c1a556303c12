"""A run on a machine that is reached by ssh: sent there once, started there, and its folder brought back.

The system's own `ssh` and `rsync` do the talking, so keys, agents, ~/.ssh/config and known hosts are the person's. What
runs there is the studio itself (`there`), in a folder of its own.
"""
