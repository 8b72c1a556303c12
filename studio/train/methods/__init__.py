"""What a model can be taught: one file per method, registered here by name."""

from studio.train.methods.sft import SFT

METHODS = {method.name: method for method in (SFT,)}

__all__ = ["METHODS", "SFT"]
