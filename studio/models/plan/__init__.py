"""What a run will be: steps, memory, time, and every `auto` resolved with its reason.

Here lives arithmetic over shapes, rows and the device; nothing is loaded or measured here. The checks that refuse a
run are in `studio.train.checks`.
"""
