"""Stage `phm`: weights become sums of Kronecker products, about n times smaller in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from edgelip.compress.permutation import Search, permute_for_factors
from edgelip.compress.phm_budget import choose_within_budget
from edgelip.compress.phm_choice import choose_layers
from edgelip.compress.phm_layers import LARGEST_N, Start, factors_from_record, record_of, replace
from edgelip.compress.stage import Record, Stage, StageConfig, Tools
from edgelip.errors import StageError
from edgelip.models.hypercomplex import PHMLayer
from edgelip.models.kronecker import energy_kept
from edgelip.recipe_sections import Strict


class Group(Strict):
    """Layers by name patterns, and their n; `terms`: fewer products in the sum than n."""

    layers: tuple[str, ...] = Field(min_length=1)
    n: int = Field(ge=2, le=LARGEST_N)
    terms: int | None = Field(None, ge=1, le=LARGEST_N)

    @model_validator(mode="after")
    def _terms_fit(self) -> Group:
        _refuse_many_terms(self.n, self.terms)
        return self


class HypercomplexConfig(StageConfig):
    """n and the layers it applies to.

    `layers` are name patterns such as "trunk.*", after "!" those to leave out; a pattern means convolutions, and linear
    layers where it fits none. None means the rule: n divides both channel counts and the factors are less than half of
    the weight, n^3 + |W|/n < |W|/2. A layer named explicitly that n does not fit, or makes larger, is an error.
    groups: layers with an n of their own each; the first that names a layer decides. head: the last layer too.
    terms: products in the sum if fewer than n. execution: layers of fewer terms run "factored" where that saves enough
    multiply-adds ("auto"), wherever it saves some, or "folded"; in int8 all run folded.
    budget_kb: stored size of the whole network in kB of 1000 bytes, in stored_bits a weight; n is then chosen among
    `choices` by the harm that each does to the answers on `probe_clips` clips.
    permute: look for the order of channels that keeps more of the trained weights.
    """

    stage: Literal["phm"] = "phm"
    n: int = Field(4, ge=2, le=LARGEST_N)
    terms: int | None = Field(None, ge=1, le=LARGEST_N)
    layers: tuple[str, ...] | None = None
    groups: tuple[Group, ...] = ()
    head: bool = False
    execution: Literal["auto", "factored", "folded"] = "auto"
    start: Start = "nearest"  # nearest Kronecker sum of the trained weight, or fresh factors
    permute: bool = False
    budget_kb: float | None = Field(None, gt=0)
    stored_bits: Literal[4, 8, 16, 32] = 32
    choices: tuple[int, ...] = Field((2, 4, 8, 16), min_length=1, max_length=16)
    probe_clips: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _settings_have_effect(self) -> HypercomplexConfig:
        # Not model_fields_set: a checkpoint's record holds every field.
        given = {key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default}
        for key, idle in (("groups", ("n", "terms", "layers", "head")), ("budget_kb", ("n", "terms", "groups"))):
            if getattr(self, key):
                for other in idle:
                    if other in given:
                        raise ValueError(f"{other} has no effect beside {key}; leave one of them out")
        for other in ("stored_bits", "choices", "probe_clips"):
            if other in given and self.budget_kb is None:
                raise ValueError(f"{other} has an effect with budget_kb only; set that too")
        if self.permute and self.start == "random":
            raise ValueError('permute has no effect with start = "random": fresh factors keep nothing of the weights')
        if any(not 0 <= n <= LARGEST_N for n in self.choices):
            raise ValueError(f"choices {list(self.choices)} must be 0 or 1 (dense) to {LARGEST_N}")
        if self.execution != "auto" and all(terms is None for terms in (self.terms, *(g.terms for g in self.groups))):
            raise ValueError(f"execution = {self.execution!r} has an effect with fewer terms than n only; set terms")
        _refuse_many_terms(self.n, self.terms)
        return self


def _refuse_many_terms(n: int, terms: int | None) -> None:
    if terms is not None and terms > n:
        raise ValueError(f"terms = {terms} is more than n = {n}; take n or fewer")


class Hypercomplex(Stage):
    """Replaces layers by PHM layers (Zhang et al., ICLR 2021; for lip reading Panagos et al. 2024).

    A stage that starts from trained weights takes the nearest Kronecker sums (Van Loan and Pitsianis 1993).
    """

    name = "phm"
    phase = "structure"
    rank: ClassVar[int] = 2
    config_model = HypercomplexConfig
    sources = tuple(
        f"compress/{module}.py" for module in ("permutation", "phm_budget", "phm_choice", "phm_layers", "sensitivity")
    )

    @property
    def label(self) -> str:
        if self.config.budget_kb is not None:
            return f"PHM within {self.config.budget_kb:g} kB"
        few = {group.terms for group in self.config.groups} if self.config.groups else {self.config.terms}
        sizes = sorted({group.n for group in self.config.groups} or {self.config.n})
        terms = "/".join(str(number) for number in sorted(number for number in few if number))
        return f"PHM n={'/'.join(map(str, sizes))}" + (f", {terms} term{'s' * (terms != '1')}" if terms else "")

    def prepare(self, model: nn.Module, tools: Tools) -> tuple[nn.Module, Record]:
        if any(isinstance(module, PHMLayer) for module in model.modules()):
            raise StageError("The model has PHM layers already; stage 'phm' applies once. Remove one of the two.")
        record: Record = {}
        if self.config.budget_kb is not None:
            chosen, record["budget"] = choose_within_budget(model, self.config, tools.probe())
        else:
            chosen = choose_layers(model, self.config)
        if self.config.permute:
            rehearsed = not tools.calibration().sha256
            search = Search(rounds=1, seconds=1.0, heats=(0.0,)) if rehearsed else Search()
            found = permute_for_factors(model, {name: (f.n, f.terms) for name, f in chosen.items()}, search)
            record["energy_before_permutation"], record["permuted_in_time"] = _rounded(found.before), found.in_time
        if self.config.start == "nearest":
            weights = {name: model.get_submodule(name).weight for name in chosen}
            record["energy"] = _rounded(
                {
                    name: energy_kept(weights[name], f.n, terms=f.terms)  # type: ignore[arg-type]
                    for name, f in chosen.items()
                }
            )
        replace(model, chosen, start=self.config.start)
        return model, {"layers": record_of(chosen), **record}

    def restore(self, model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
        replace(model, factors_from_record(model, record), start="random")
        return model


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}
