"""The tail of `pimloom.arch.document.load`, for a tree that was not read from a YAML file."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pimloom.arch import document
from pimloom.arch.document import Document
from pimloom.arch.tree import Findings, Node

M = TypeVar("M", bound=BaseModel)


def validate(cls: type[M], kind: str, root: Node, overrides: Sequence[str] = ()) -> tuple[M, Document]:
    """Put overrides over a tree and make a model of it; raises InputError with all that is wrong."""
    findings = Findings()
    for text in overrides:
        root = document._override(root, cls, text, findings)
    try:
        model = cls.model_validate(root.plain())
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            document._report(root, cls, error, findings)
        findings.raise_if_any()
        raise
    findings.raise_if_any()
    return model, Document(kind, root)
