"""One run on several processes (ranks) of this machine.

`launching` starts them by torch's elastic launcher and says how they ended, `__main__` is what a rank runs, `sharing`
is all that ranks say to each other. What each computes is `trainers.grouped`: a part of every update's rows.
"""
