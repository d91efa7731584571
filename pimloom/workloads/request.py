"""What is asked of a model: so many prompt tokens, so many new ones, so many sequences at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pimloom.arch.base import Count, Description, Strict
from pimloom.arch.document import ConflictError, Override, validate
from pimloom.arch.tree import Findings, Node, Place
from pimloom.workloads.model import Model


class Workload(Strict):
    """One run. Every sequence of the batch has the same prompt length and the same number of new tokens."""

    prompt: Count = 1
    """Tokens given."""
    generate: Count = 128
    """New tokens asked for."""
    batch: Count = 1
    """Sequences side by side."""
    embedding: bool = True
    """The look-up of token and position tables is part of the run."""
    head: bool = True
    """So is the LM head."""

    @property
    def passes(self) -> int:
        """Passes through the decoder: one a token, and the last prompt token's gives the first new one."""
        return self.prompt + self.generate - 1

    def check_fits(self, model: Model) -> None:
        """Raise ConflictError where the run needs more positions than the model has."""
        if self.passes > model.positions:
            raise ConflictError(
                f"workload: prompt {self.prompt} + generate {self.generate} - 1 = {self.passes} positions, "
                f"but {model.name} has {model.positions}"
            )


class _Settings(Strict):
    workload: Workload


def load_workload(overrides: Sequence[str | Override] = (), **options: int | bool) -> Workload:
    """A workload from options, named as the fields, and `workload.key=value` overrides.

    Raises InputError with everything that is wrong; an option is named as the command line writes it.
    """

    def node(value: object, name: str) -> Node:
        place = Place(f"--{name}", 1, 1)
        return Node(value, place, place)  # type: ignore[arg-type]

    inner = {name: node(value, name) for name, value in options.items()}
    root = node({"workload": node(inner, "workload")}, "workload")
    return validate(_Settings, "workload", root, overrides)[0].workload


def target_of(key: str) -> tuple[Literal["arch", "model", "workload"], str]:
    """Return what a key of a run belongs to, and its path there; without `model.` or `workload.` it is the arch's."""
    head, _, rest = key.partition(".")
    if rest and head == "model":
        return "model", rest
    return ("workload", rest) if rest and head == "workload" else ("arch", key)


def by_target(overrides: Sequence[Override]) -> tuple[list[Override], list[Override], list[Override]]:
    """Deal out overrides to arch, model and workload, by `target_of` their keys.

    Raises InputError for the bare name of a model's or workload's key.
    """
    of_model, of_workload, of_arch = [], [], []
    findings = Findings()
    for o in overrides:
        target, path = target_of(o.key)
        if target == "model":
            of_model.append(replace(o, key=path))
        elif target == "workload":
            of_workload.append(o)
        else:
            of_arch.append(o)
            for kind, cls in (("workload", Workload), ("model", Model)):
                if o.key in cls.model_fields and o.key not in Description.model_fields:
                    text = f"a machine has no such key (did you mean '{kind}.{o.key}'?)"
                    findings.add(o.leaf.key_place, (o.key,), text)
    findings.raise_if_any()
    return of_arch, of_model, of_workload
