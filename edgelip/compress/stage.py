"""What a compression stage is: a step to a smaller or cheaper model, recorded so that it can be rebuilt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field
from torch import Tensor, nn

from edgelip.recipe_sections import Strict

Phase = Literal["structure", "weights", "numerics"]
PHASES: tuple[Phase, ...] = ("structure", "weights", "numerics")
Record = dict[str, Any]


class FineTuning(Strict):
    """Training that follows a stage, with distillation from the model before it."""

    epochs: int = Field(2, ge=0)
    clips_per_epoch: int | None = Field(None, ge=1)  # drawn anew each epoch; none takes all
    learning_rate: float = Field(1e-3, gt=0)
    distil_weight: float = Field(0.7, ge=0, le=1)  # share of the loss that follows the parent
    temperature: float = Field(3.0, gt=0)


class FineTune(Protocol):
    """Trains `student` after `teacher` and returns the best of it in eval mode; handed in by the caller."""

    def __call__(
        self, student: nn.Module, *, teacher: nn.Module, tuning: FineTuning, train_norms: bool
    ) -> nn.Module: ...


@dataclass(frozen=True)
class LabelledClips:
    """Network inputs (B, 1, T, H, W), the label of each word (B,), and the sha256 of the clips they were made from."""

    clips_B1THW: Tensor
    labels_B: Tensor
    sha256: str = ""

    def first(self, num_clips: int) -> LabelledClips:
        return LabelledClips(self.clips_B1THW[:num_clips], self.labels_B[:num_clips], self.sha256)


@dataclass(frozen=True)
class Tools:
    """What stages are given to work with: a way to train, and clips of the splits that may be looked at.

    calibration: of the training split, words evenly spread. probe: of the validation split, to score choices on.
    say: takes a line on the progress of long choices.
    """

    finetune: FineTune
    calibration: Callable[[], LabelledClips]
    probe: Callable[[], LabelledClips]
    say: Callable[[str], None] = lambda line: None


class StageConfig(Strict):
    """Fields that every stage takes; `stage` names it."""

    stage: str
    tune: FineTuning = FineTuning()


class Stage(ABC):
    """One compression step. `apply` returns a new model; the given one stays as it was.

    rank: order inside and across phases; smaller comes first, equal ones stand in any order.
    integer: the model runs in int8 afterwards. sources: files of edgelip, beside its own, whose change changes results.
    """

    name: ClassVar[str]
    phase: ClassVar[Phase]
    rank: ClassVar[int]
    config_model: ClassVar[type[StageConfig]]
    trains_norms: ClassVar[bool] = True
    integer: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abstractmethod
    def label(self) -> str:
        """The step in a few words, as tables show it: "PHM n=4"."""

    @abstractmethod
    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        """Change `model` (a copy, in eval mode) before fine-tuning. Returns it and what `restore` needs."""

    @abstractmethod
    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        """Give a freshly built parent the structure that `prepare` gave it; weights are loaded afterwards."""

    def apply(self, parent: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        """The compressed and fine-tuned model, and its record. Raises StageError where the stage does not fit."""
        student, record = self.prepare(deepcopy(parent).eval(), tools)
        if self.config.tune.epochs:
            student = tools.finetune(student, teacher=parent, tuning=self.config.tune, train_norms=self.trains_norms)
        return student.eval(), record
