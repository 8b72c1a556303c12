"""What this machine is and how fast.

Here live memory, GPUs, disk and the measured speed, asked for without torch. What a run takes of it is in `plan`.
"""
