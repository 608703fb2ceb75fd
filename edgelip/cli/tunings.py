"""The trainings that one stage asks for, each kept when done: an interrupted stage goes on after the last of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from edgelip.compress.stage import FineTuning
from edgelip.errors import StageError
from edgelip.files import write_atomic

STATE = "training.ckpt"  # as edgelip.train.fit calls it, which imports Lightning
_TUNED = "tuned.safetensors"


class Tunings:
    """What a stage trains with. `fit` trains in a folder below `work`; `name` is what progress calls the stage."""

    def __init__(self, fit: Callable[..., nn.Module], work: Path, *, name: str) -> None:
        self._fit, self._work, self._name = fit, work, name
        self._number = 0

    def __call__(self, student: nn.Module, *, teacher: nn.Module, tuning: FineTuning, train_norms: bool) -> nn.Module:
        """The tuned student in eval mode, from its file where an earlier run made it."""
        self._number += 1
        work = self._work / f"tune{self._number}"
        work.mkdir(exist_ok=True)
        done = work / _TUNED
        if done.is_file():
            student.load_state_dict(load_tensors(done.read_bytes()))
            return student.eval()
        tuned = self._fit(
            student,
            work,
            name=f"tune {self._name}" + (f" ({self._number})" if self._number > 1 else ""),
            epochs=tuning.epochs,
            rate=tuning.learning_rate,
            teacher=teacher,
            tuning=tuning,
            train_norms=train_norms,
        )
        tensors = {name: value.contiguous().clone() for name, value in tuned.state_dict().items()}
        lost = next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None)
        if lost is not None:
            raise StageError(
                f"Tuning after {self._name!r} ended in weights that are no numbers (the first "
                f"{lost!r}). Lower tune.learning_rate ({tuning.learning_rate:g})."
            )
        write_atomic(done, save_tensors(tensors))
        (work / STATE).unlink(missing_ok=True)
        return tuned


def drop_states(work: Path) -> None:
    """Remove what only an unfinished step needs from its folder."""
    for leftover in (work / STATE, *work.glob(f"tune*/{_TUNED}")):
        leftover.unlink(missing_ok=True)
