"""A whole run, and the rules that span its sections."""

from __future__ import annotations

from pydantic import Field, model_validator

from studio.config.data import DataConfig
from studio.config.model import ModelConfig
from studio.config.training import TrainingConfig
from studio.methods import MethodConfig
from studio.option import Options
from studio.tunings import TuningConfig


class RunConfig(Options):
    """One training run: the sections of the YAML file, in the order of work."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="The model that is trained.")
    data: DataConfig = Field(default_factory=DataConfig, description="The examples, and how they become tokens.")
    method: MethodConfig = Field(default_factory=MethodConfig, description="What the model is taught.")
    tuning: TuningConfig = Field(default_factory=TuningConfig, description="Which of its numbers change.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="How long and how fast.")

    @property
    def padding_free(self) -> bool:
        """Whether examples share a row: the option counts for the methods that have it."""
        return self.method.kind.padding_free and self.training.padding_free

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> RunConfig:
        micro, batch = self.training.micro_batch_size, self.training.batch_size
        if micro != "auto" and batch % micro:
            raise ValueError(f"training.micro_batch_size: {micro} does not divide training.batch_size {batch}")
        return self
