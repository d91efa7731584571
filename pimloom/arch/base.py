"""What the pydantic models of descriptions are made of, and their JSON Schema."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from pimloom.arch.tree import Keys


def _integral(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_integral)]
"""An integer that may be written as 1e9; booleans and strings are refused."""

Count = Annotated[Int, Field(ge=1, le=2**40)]
"""A number of things, at least one."""


class Strict(BaseModel):
    """A frozen part of a description: unknown keys refused, no conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Description(Strict):
    """The keys that every document has beside its own; subclasses add `kind: Literal[...]`."""

    version: Literal[1]
    name: str
    description: str = ""
    sources: dict[str, str] = {}


def raise_located(title: str, findings: Sequence[tuple[Keys, str]]) -> None:
    """Raise `findings`, pairs of (path below the model, message), from inside a pydantic validator.

    pydantic prefixes the paths with the model's own, so each finding is reported where its value stands.
    """
    if findings:
        raise ValidationError.from_exception_data(
            title,
            [
                InitErrorDetails(
                    type=PydanticCustomError("located", "{text}", {"text": text}), loc=path, input=None
                )
                for path, text in findings
            ],
        )


def json_schema(cls: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a kind for editors: any scalar may be `{value, source, note}`, `extends` is known.

    Nothing is required in it, since what a file leaves out may come from the file it extends.
    """
    schema = cls.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        properties = part.get("properties", {})
        part.pop("required", None)
        part["properties"] = {
            name: value if name == "sources" else _sourced(value) for name, value in properties.items()
        }
        if "sources" in properties:
            part["properties"]["extends"] = {"type": "string"}
            part["properties"]["abstract"] = {"type": "boolean"}
    return schema


def _sourced(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema`, which also admits `{value, source, note}` if it describes no mapping."""
    if isinstance(schema.get("additionalProperties"), dict):
        return schema | {"additionalProperties": _sourced(schema["additionalProperties"])}
    if "$ref" in schema or schema.get("type") == "object":
        return schema
    text = {"type": "string"}
    wrapped = {
        "type": "object",
        "properties": {"value": schema, "source": text, "note": text},
        "required": ["value", "source"],
        "additionalProperties": False,
    }
    return {"anyOf": [schema, wrapped]}
