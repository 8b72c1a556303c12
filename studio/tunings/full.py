"""Full fine-tuning: every weight changes."""

from studio.option import Options
from studio.tunings.tuning import Tuning

FULL = Tuning(
    name="full", title="Full", sentence="all weights", options=Options, adapter=False, shards=True
)  # fmt: skip
