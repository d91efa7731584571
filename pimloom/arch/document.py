"""YAML descriptions: `extends`, overrides, validation by pydantic models, the resolved text.

Whatever is wrong with a description is reported as `file:line:column: path: message`, all of it at once.
"""

import re
import types
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pimloom.arch.tree import (
    ConflictError,
    Findings,
    InputError,
    Keys,
    Node,
    Place,
    did_you_mean,
    dotted,
    is_file,
    read_file,
    read_text,
    shown,
    strip,
    write,
)
from pimloom.configs import FOLDERS, folder

__all__ = [
    "ConflictError", "Document", "InputError", "Override", "field_type", "is_reference", "kind_of", "load",
    "locate", "parse_overrides", "read", "shipped", "validate",
]  # fmt: skip

M = TypeVar("M", bound=BaseModel)
PARTS = ("dram", "device", "host")
"""Keys of a document whose value is a description of the kind of that name, and may extend one."""
_WITH_UNIT = re.compile(r"[0-9.]+ *[A-Za-zµ/]+")


# --- finding documents, `extends`, overrides ------------------------------------------------------------


def shipped(kind: str) -> list[str]:
    """Names of the shipped descriptions of one kind, without those that are only there to be extended."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder(kind).glob("*.yaml")}
    # A folder can hold several kinds; a regular expression spares reading all of them as YAML.
    of_kind, abstract = (
        re.compile(line, re.MULTILINE) for line in (rf"^kind: *{kind}\b", "^abstract: *true")
    )
    return sorted(name for name, text in texts.items() if of_kind.search(text) and not abstract.search(text))


def locate(kind: str, name_or_path: str, relative_to: Path | None = None) -> Path:
    """The file of a shipped name or of a path (anything with a / or ending in .yaml, .yml, .json).

    Raises InputError if there is none, with the shipped names.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml", ".json")):
        path = (relative_to or Path()) / name_or_path
        if not is_file(path):
            raise InputError(f"{str(path)!r}: no such file")
        return path
    path = folder(kind) / f"{name_or_path}.yaml"
    if not re.fullmatch(r"[\w.+-]+", name_or_path) or not is_file(path):
        names = shipped(kind)
        raise InputError(
            f"no {kind} description {name_or_path!r} is shipped{did_you_mean(name_or_path, names)}; "
            f"there are: {', '.join(names) or 'none'}; a file is named by its path, such as ./my.yaml"
        )
    return path


def _merge(base: Node, child: Node) -> Node:
    """`child` over `base`, mapping by mapping; whatever is no mapping in both is the child's."""
    if not isinstance(base.value, dict) or not isinstance(child.value, dict):
        return child
    merged = {
        key: _merge(node, child.value[key]) if key in child.value else node
        for key, node in base.value.items()
    }
    return replace(child, value=merged | {k: n for k, n in child.value.items() if k not in merged})


def _check_kind(root: Node, kind: str, findings: Findings) -> None:
    node = root.value["kind"] if isinstance(root.value, dict) and "kind" in root.value else None
    if node is None:
        findings.add(root.key_place, ("kind",), f"missing; it should be {kind!r}")
    elif node.value != kind:
        hint = "" if node.value in tuple(FOLDERS) else did_you_mean(str(node.value), list(FOLDERS))
        findings.add(node.place, ("kind",), f"{kind!r} is wanted here, not {shown(node.value)}{hint}")


def _resolve(path: Path, kind: str, findings: Findings, chain: tuple[Path, ...] = ()) -> Node:
    """The tree of a file with every `extends` in it replaced by what it names."""
    root = read_file(path, findings)
    _check_kind(root, kind, findings)
    chain = (*chain, path.resolve())
    merged = _extend(root, (), kind, path, findings, chain)
    for part in PARTS:
        own = root.value.get(part) if isinstance(root.value, dict) else None
        if own and isinstance(own.value, dict) and "extends" in own.value and isinstance(merged.value, dict):
            # A `dram:` that names what it extends starts from that, not from the memory of an extended machine.
            whole = _extend(own, (part,), part, path, findings, chain)
            merged = replace(merged, value=merged.value | {part: whole})
    return merged


def _extend(node: Node, at: Keys, kind: str, path: Path, findings: Findings, chain: tuple[Path, ...]) -> Node:
    if not isinstance(node.value, dict) or "extends" not in node.value:
        return node
    link = node.value["extends"]
    child = replace(node, value={key: item for key, item in node.value.items() if key != "extends"})
    where = (*at, "extends")
    if not isinstance(link.value, str):
        findings.add(link.place, where, f"should be a name or a path, not {shown(link.value)}")
        return child
    try:
        target = locate(kind, link.value, path.parent)
    except InputError as error:
        findings.add(link.place, where, str(error))
        return child
    if target.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain, target))
        findings.add(link.place, where, f"these files extend each other in a circle: {names}")
        return child
    base = _resolve(target, kind, findings, chain)
    assert isinstance(base.value, dict)
    _check_same_sources(base, child, findings)
    return _merge(replace(base, value={key: n for key, n in base.value.items() if key != "abstract"}), child)


def _check_same_sources(base: Node, child: Node, findings: Findings) -> None:
    """A key of `sources` keeps its meaning, since values of both files refer to it."""
    before, after = _sources_of(base), _sources_of(child)
    for key in before.keys() & after.keys():
        if before[key].value != after[key].value:
            place = before[key].place
            findings.add(
                after[key].key_place,
                ("sources", key),
                f"this key means something else in {place.file}:{place.line}; choose another",
            )


def _sources_of(node: Node) -> dict[str, Node]:
    sources = node.value.get("sources") if isinstance(node.value, dict) else None
    return sources.value if sources and isinstance(sources.value, dict) else {}


@dataclass(frozen=True)
class Override:
    """A value that is put over a description's own; `key` is its dotted path, `leaf` knows where both stand."""

    key: str
    leaf: Node


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Read `key=value` texts, values as YAML.

    Raises InputError with everything that is wrong with them.
    """
    findings = Findings()
    found = [_parse_override(text, findings) for text in texts]
    findings.raise_if_any()
    return [override for override in found if override]


def _parse_override(text: str, findings: Findings) -> Override | None:
    file = f"-o {text}"
    key, equals, value_text = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        findings.add(Place(file, 1, 1), (), "an override is written key=value, such as dram.channels=16")
        return None
    new = read_text(value_text, file, findings, len(key) + 1)
    place = Place(file, 1, len(key) + 2)
    leaf = new or Node(None, place, place)
    return Override(key.strip(), replace(leaf, key_place=Place(file, 1, 1)))


def _override(root: Node, cls: type[BaseModel], override: Override, findings: Findings) -> Node:
    """`root` with one value put over it."""
    path: list[str | int] = []
    node: Node | None = root
    parts = override.key.split(".")
    for i, part in enumerate(parts):
        here = node.value if node else None
        known = list(here) if isinstance(here, dict) else []
        item: str | int = part
        if isinstance(here, list) and part in map(str, range(len(here))):
            item = int(part)
        elif part not in known:
            fields = _fields_at(cls, tuple(path))
            if part not in fields or (here is not None and not isinstance(here, dict)):
                # A key that is written without what it stands under is named in full.
                whole = [dotted(at) for at, _ in root.walk() if at[-1:] == (part,)] if not path else []
                hint = f" (did you mean {whole[0]!r}?)" if whole else did_you_mean(part, known + fields)
                findings.add(
                    override.leaf.key_place, (*path, *parts[i:]), f"there is no {part!r} to override{hint}"
                )
                return root
        path.append(item)
        if isinstance(here, dict):
            node = here.get(part)
        else:
            node = here[item] if isinstance(here, list) and isinstance(item, int) else None
    leaf = replace(strip(override.leaf, tuple(path), findings), key_place=override.leaf.key_place)
    root = _put(root, path, leaf)
    _check_sources(root, leaf, tuple(path), findings)
    has_null = any(node.value is None for _, node in leaf.walk())
    return _drop_null_entries(root, cls) if has_null else root


def _put(node: Node | None, path: list[str | int], leaf: Node) -> Node:
    if not path:
        return _merge(node, leaf) if node else leaf
    first, rest = path[0], path[1:]
    if node is not None and isinstance(node.value, list):
        assert isinstance(first, int)
        items = list(node.value)
        items[first] = _put(items[first], rest, leaf)
        return replace(node, value=items)
    value = node.value if node and isinstance(node.value, dict) else {}
    entry = _put(value.get(str(first)), rest, leaf)
    base = node or Node({}, leaf.place, leaf.key_place)
    return replace(base, value=value | {str(first): entry})


# --- the pydantic side ------------------------------------------------------------


def _unwrap(annotation: Any) -> Any:
    """The type inside Annotated and Optional."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            inner = [arg for arg in get_args(annotation) if arg is not types.NoneType]
            if len(inner) != 1:
                return None
            annotation = inner[0]
        else:
            return annotation


def _type_at(cls: type[BaseModel], path: Keys) -> Any:
    """The annotation of the model at a path below `cls`, or None where it has none."""
    here: Any = cls
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = _unwrap(field.annotation) if field else None
        elif get_origin(here) in (dict, list):
            here = _unwrap(get_args(here)[-1])
        else:
            return None
    return here


def field_type(cls: type[BaseModel], key: str) -> Any:
    """The type of the value at a dotted path below `cls`, such as int, or None where the description has none."""
    return _type_at(cls, tuple(key.split(".")))


def _fields_at(cls: type[BaseModel], path: Keys) -> list[str]:
    here = _type_at(cls, path)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _drop_null_entries(node: Node, cls: type[BaseModel], path: Keys = ()) -> Node:
    """Without the entries of named collections (`dict[str, ...]`) that a child set to null to remove them."""
    if not isinstance(node.value, dict):
        return node
    here = _type_at(cls, path)
    named = get_origin(here) is dict and get_args(here)[-1] is not Any  # among any values null is one of them
    kept = {key: item for key, item in node.value.items() if not (named and item.value is None)}
    return replace(
        node, value={key: _drop_null_entries(item, cls, (*path, key)) for key, item in kept.items()}
    )


def _report(root: Node, cls: type[BaseModel], error: ErrorDetails, findings: Findings) -> None:
    """One error of pydantic, at the position of the value it is about."""
    # pydantic appends "[key]" where the key of a mapping is wrong.
    about_key = error["loc"][-1:] == ("[key]",)
    loc: Keys = error["loc"][:-1] if about_key else error["loc"]
    node = root.nearest(loc)
    place = node.key_place if about_key or error["type"] in ("extra_forbidden", "missing") else node.place
    if error["type"] != "located" and findings.concern(place, loc):
        return  # the reader or the check of the kind has said why
    match error["type"]:
        case "extra_forbidden":
            message = f"unknown key{did_you_mean(str(loc[-1]), _fields_at(cls, loc[:-1]))}"
        case "missing" | "located":
            message = "missing" if error["type"] == "missing" else error["msg"]
        case "value_error" | "assertion_error":
            message = str(error["ctx"]["error"])
        case "model_type" | "dict_type":
            message = f"should be a mapping of keys to values, not {shown(error['input'])}"
        case "string_pattern_mismatch" if about_key:
            message = f"a name here matches {error['ctx']['pattern']}"
        case _:
            message = f"{error['msg'].replace('Input should be', 'should be')}, not {shown(error['input'])}"
            if isinstance(error["input"], str) and _WITH_UNIT.fullmatch(error["input"]):
                message += "; a number alone, such as 1e9, in the unit that the key names"
    findings.add(place, loc, message, error["type"] in ("located", "value_error", "assertion_error"))


# --- documents --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """The resolved tree of a description: everything it extends and every override merged in."""

    kind: str
    root: Node

    def sources(self) -> dict[str, str]:
        """Path of every value that names a source -> the text of that source (and the value's note)."""
        found: dict[str, str] = {}
        for path, node in self.root.walk():
            if node.source is not None:
                text = _source_text(self.root, path, node.source) or node.source
                found[dotted(path)] = f"{text}; {node.note}" if node.note else text
        return found

    def text(self) -> str:
        """YAML that loads again to the same: no `extends`, no overrides, sources kept."""
        return "".join(write(self.root, 0))

    def error(self, path: str, message: str) -> InputError:
        """An InputError about the value at a dotted path, with its position or that of its nearest parent."""
        place = self.root.nearest([int(p) if p.isdecimal() else p for p in path.split(".")]).place
        return InputError(f"{place.file}:{place.line}:{place.column}: {path}: {message}")


def _source_text(root: Node, path: Keys, key: str) -> str | None:
    """Text of a source key: from the nearest mapping around the value that has it in its `sources`."""
    text, node = None, root
    for part in (*path, None):
        if key in _sources_of(node):
            text = str(_sources_of(node)[key].value)
        if part is not None:
            node = node.nearest((part,))
    return text


def _check_sources(root: Node, part: Node, at: Keys, findings: Findings) -> None:
    """Note every source below `part`, which stands at a path of `root`, that nothing explains."""
    for path, node in part.walk(at):
        if node.source is not None and _source_text(root, path, node.source) is None:
            known = [key for i in range(len(path)) for key in _sources_of(root.nearest(path[:i]))]
            hint = did_you_mean(node.source, known)
            findings.add(
                node.place, path, f"the source {shown(node.source)} is not among the 'sources'{hint}"
            )


def load(
    cls: type[M], kind: str, name_or_path: str, overrides: Sequence[str | Override] = ()
) -> tuple[M, Document]:
    """Read, merge, override and validate one description.

    `cls` is the pydantic model of the kind; `overrides` are `key=value` texts with paths as in the YAML.
    Raises InputError with everything that is wrong, one `file:line:column: path: message` a line.
    """
    findings = Findings()
    return validate(cls, kind, _read(cls, kind, name_or_path, findings), overrides, findings)


def read(cls: type[BaseModel], kind: str, name_or_path: str) -> Node:
    """The beginning of `load`: the tree of a description, for `validate` with one set of overrides or many.

    Raises InputError with everything that is wrong before the description is looked at as one of its kind.
    """
    findings = Findings()
    root = _read(cls, kind, name_or_path, findings)
    findings.raise_if_any()
    return root


def _read(cls: type[BaseModel], kind: str, name_or_path: str, findings: Findings) -> Node:
    root = _resolve(locate(kind, name_or_path), kind, findings)
    assert isinstance(root.value, dict)
    if "abstract" in root.value:
        findings.add(
            root.value["abstract"].key_place, ("abstract",), "this description is only there to be extended"
        )
        findings.raise_if_any()
    root = _drop_null_entries(root, cls)
    _check_sources(root, root, (), findings)
    return root


def validate(
    cls: type[M],
    kind: str,
    root: Node,
    overrides: Sequence[str | Override] = (),
    findings: Findings | None = None,
) -> tuple[M, Document]:
    """The end of `load`, for a tree that was read in another way: override and validate it.

    Raises InputError with everything that is wrong, together with the `findings` so far; ConflictError where
    every value is one that its key may have, but they do not go together.
    """
    findings = findings or Findings()
    for given in overrides:
        override = _parse_override(given, findings) if isinstance(given, str) else given
        if override:
            root = _override(root, cls, override, findings)
    try:
        model = cls.model_validate(root.plain())
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            _report(root, cls, error, findings)
        findings.raise_if_any()
        raise
    findings.raise_if_any()
    return model, Document(kind, root)


def is_reference(root: Node) -> bool:
    """Whether a mapping is a configuration of the DRAM reference data, by its key `simulator`."""
    return isinstance(root.value, dict) and "simulator" in root.value


def kind_of(path: str) -> str:
    """The `kind:` of a file; a configuration of the DRAM reference data is a memory.

    Raises InputError if the file cannot be read or its kind is none of `pimloom.configs.FOLDERS`.
    """
    findings = Findings()
    root = read_file(Path(path), findings)
    assert isinstance(root.value, dict)
    node = root.value.get("kind")
    kinds = ", ".join(FOLDERS)
    if is_reference(root):
        return "memory"
    if node is None:
        findings.add(root.key_place, ("kind",), f"missing; it should be one of {kinds}")
    elif node.value not in tuple(FOLDERS):
        hint = did_you_mean(str(node.value), list(FOLDERS))
        findings.add(node.place, ("kind",), f"should be one of {kinds}, not {shown(node.plain())}{hint}")
    else:
        return str(node.value)
    findings.raise_if_any()
    raise AssertionError
