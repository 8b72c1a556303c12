"""What happens while a run trains: counting, callbacks, health, the best checkpoint, saving.

Here lives what hangs on a trainer whatever its method is. The losses are in `trainers`, the options in `methods`.
"""
