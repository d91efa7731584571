"""A YAML text as a tree in which every value keeps its position and its source, and the tree as YAML again.

YAML 1.2 scalars (1e9 is a number, `on` is a text); duplicate keys, tags and aliases are refused.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

Keys = tuple[str | int, ...]
Scalar = str | int | float | bool | None

MAX_FILE_B = 2**24
MAX_DEPTH = 50
MAX_DIGITS = 400
MAX_KEY = 100
MAX_SHOWN = 60
MAX_LINES = 100
"""Of complaints; one wrong word can cause thousands."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class InputError(Exception):
    """Something the user wrote or asked for is wrong; the text says what and where, one line per finding."""


class ConflictError(InputError):
    """Values that are all allowed, but not together; `reason` is the text in one line without the places."""

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text, reason)
        self.reason = reason or text

    def __str__(self) -> str:
        return str(self.args[0])


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the nearest of the known words, or nothing if none is near."""
    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def listed(complaints: Sequence[str]) -> str:
    """Complaints, one a line, and how many more there are than anyone reads."""
    more = [f"and {len(complaints) - MAX_LINES} more"] if len(complaints) > MAX_LINES else []
    return "\n".join([*complaints[:MAX_LINES], *more])


@dataclass(frozen=True)
class Place:
    """A position in a file, counted from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True)
class Node:
    """One value of a document: where it stands, where its key stands, and which source it names."""

    value: "Scalar | dict[str, Node] | list[Node]"
    place: Place
    key_place: Place
    source: str | None = None
    note: str | None = None

    def plain(self) -> Any:
        """The value without positions: dict, list or scalar."""
        match self.value:
            case dict():
                return {key: node.plain() for key, node in self.value.items()}
            case list():
                return [node.plain() for node in self.value]
            case _:
                return self.value

    def walk(self, path: Keys = ()) -> "Iterator[tuple[Keys, Node]]":
        """Every node at and below this one, with its path."""
        yield path, self
        children: Sequence[tuple[str | int, Node]] = ()
        if isinstance(self.value, dict):
            children = list(self.value.items())
        elif isinstance(self.value, list):
            children = list(enumerate(self.value))
        for key, node in children:
            yield from node.walk((*path, key))

    def nearest(self, path: Sequence[str | int]) -> "Node":
        """The node at a path below this one, or the last one on the way to it."""
        node = self
        for part in path:
            child: Node | None = None
            if isinstance(node.value, dict):
                child = node.value.get(str(part))
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                child = node.value[part]
            if child is None:
                break
            node = child
        return node


class Findings:
    """Everything found wrong so far; raised together, sorted by position."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, Keys, str]] = []
        self._are_conflicts = True

    def add(self, place: Place, path: Keys, message: str, is_conflict: bool = False) -> None:
        """Note `message` about the value at `path` of the document, and whether it is about several values."""
        self._found.append((place, path, message))
        self._are_conflicts &= is_conflict

    def concern(self, place: Place, path: Keys) -> bool:
        """Whether something has been said about this value."""
        return any(found[:2] == (place, path) for found in self._found)

    def raise_if_any(self) -> None:
        """Raise InputError with a line for each finding, if there is one; ConflictError if all are conflicts."""
        lines = {
            (place.file, place.line, place.column, f"{dotted(path)}: {message}" if path else message)
            for place, path, message in self._found
        }
        if lines:
            told = [f"{f}:{line}:{column}: {text}" for f, line, column, text in sorted(lines)]
            text = listed(told)
            if self._are_conflicts:
                raise ConflictError(text, "; ".join(sorted({message for *_, message in lines})))
            raise InputError(text)


def dotted(path: Keys) -> str:
    """A path as it is written on the command line: `dram.timing.nRP`."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """A value as messages print it, in at most 60 characters."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:57]}..."


# --- reading --------------------------------------------------------------------------------


def _scalar(text: str) -> Scalar:
    """Value of a plain scalar by the core schema of YAML 1.2.

    Raises ValueError for a number of absurd length.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text) or _RADIX.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits")
        return int(text, 0) if _RADIX.fullmatch(text) else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Reader:
    """Composes one YAML text into nodes, from the parser's events, without recursion into C code."""

    def __init__(self, text: str, file: str, findings: Findings, column: int = 0) -> None:
        self.file, self.findings, self.column = file, findings, column
        self.events = yaml.parse(text, Loader=_LOADER)
        self.event = next(self.events)

    def place(self) -> Place:
        mark = self.event.start_mark
        assert mark is not None, "PyYAML marks every event that it parses"
        return Place(self.file, mark.line + 1, mark.column + 1 + self.column)

    def step(self) -> None:
        self.event = next(self.events)

    def document(self) -> Node | None:
        """The root of the only document, or None if there is none."""
        self.step()
        if isinstance(self.event, yaml.StreamEndEvent):
            return None
        self.step()
        root = self.node((), None)
        self.step()
        if not isinstance(self.event, yaml.StreamEndEvent):
            self.findings.add(self.place(), (), "a second document starts here; one file holds one")
        return root

    def node(self, path: Keys, key_place: Place | None) -> Node:
        """The node that starts at the current event, which is left behind it."""
        event, place = self.event, self.place()
        value: Scalar | dict[str, Node] | list[Node] = None
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.findings.add(place, path, f"the tag {tag!r}: tags have no meaning here")
        if isinstance(event, yaml.AliasEvent):
            self.findings.add(
                place, path, f"the alias '*{event.anchor}': write the value out, or use 'extends'"
            )
            self.step()
        elif isinstance(event, yaml.ScalarEvent):
            value = event.value
            if event.style in (None, ""):
                try:
                    value = _scalar(event.value)
                except ValueError as error:
                    self.findings.add(place, path, str(error))
            self.step()
        else:
            if len(path) >= MAX_DEPTH:
                self.findings.add(place, (), f"nested more than {MAX_DEPTH} levels deep")
                self.findings.raise_if_any()
            self.step()
            value = self.mapping(path) if isinstance(event, yaml.MappingStartEvent) else self.sequence(path)
        return Node(value, place, key_place or place)

    def sequence(self, path: Keys) -> list[Node]:
        items: list[Node] = []
        while not isinstance(self.event, yaml.SequenceEndEvent):
            items.append(self.node((*path, len(items)), None))
        self.step()
        return items

    def mapping(self, path: Keys) -> dict[str, Node]:
        items: dict[str, Node] = {}
        while not isinstance(self.event, yaml.MappingEndEvent):
            key_place, event = self.place(), self.event
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or len(event.value) > MAX_KEY:
                self.findings.add(
                    key_place, path, f"a key must be a plain word of at most {MAX_KEY} characters"
                )
                self.node((*path, "?"), None)
                self.node((*path, "?"), None)
                continue
            key = event.value
            self.step()
            node = self.node((*path, key), key_place)
            if key in items:
                first = items[key].key_place.line
                self.findings.add(
                    key_place, (*path, key), f"duplicate key; it stands in line {first} already"
                )
            else:
                items[key] = node
        self.step()
        return items


def read_text(text: str, file: str, findings: Findings, column: int = 0) -> Node | None:
    """The tree of one YAML text; syntax errors are raised at once, as nothing more can be said after them."""
    try:
        text.encode()
        root = _Reader(text, file, findings, column).document()
    except UnicodeEncodeError as error:
        findings.add(Place(file, 1, error.start + 1 + column), (), "not valid Unicode")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, at = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        reason = error.problem or error.context or "cannot be read"
        # In an override libyaml may name the line after the only one.
        place = Place(file, 1, column + 1) if column else Place(file, line, at)
        findings.add(place, (), f"not YAML: {reason}")
    except yaml.reader.ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n") + column)
        findings.add(place, (), f"not YAML: {error.reason}")
    else:
        return root
    findings.raise_if_any()
    return None


def is_file(path: Path) -> bool:
    """Tell whether there is such a file; of a name that no file can have, too."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_file(path: Path, findings: Findings) -> Node:
    """The root mapping of a file, `{value, source}` stripped.

    Raises InputError if there is no mapping to go on with.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_B + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{file}: cannot be read: {reason}") from None
    if len(data) > MAX_FILE_B:
        raise InputError(f"{file}: more than {MAX_FILE_B} B; no description is as long as that")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise InputError(f"{file}:{line}:{column}: not UTF-8 text (byte 0x{data[error.start]:02x})") from None
    root = read_text(text, file, findings)
    if root is None or not isinstance(root.value, dict):
        found = "empty" if root is None or root.value is None else shown(root.plain())
        place = root.place if root else Place(file, 1, 1)
        findings.add(place, (), f"a description is a mapping of keys to values; this is {found}")
        findings.raise_if_any()
        raise AssertionError
    return strip(root, (), findings)


def strip(node: Node, path: Keys, findings: Findings) -> Node:
    """Replace each `{value: V, source: KEY, note: TEXT}` by V, which remembers KEY and TEXT."""
    if isinstance(node.value, list):
        return replace(node, value=[strip(item, (*path, i), findings) for i, item in enumerate(node.value)])
    if not isinstance(node.value, dict):
        return node
    parts = node.value
    if "value" not in parts or not path or path[-1] == "sources":
        return replace(node, value={key: strip(item, (*path, key), findings) for key, item in parts.items()})
    for key in parts.keys() - {"value", "source", "note"}:
        hint = did_you_mean(key, ["source", "note"])
        findings.add(parts[key].key_place, (*path, key), f"unknown key beside 'value'{hint}")
    texts = {}
    for key in ("source", "note"):
        if key in parts and not isinstance(parts[key].value, str):
            findings.add(parts[key].place, (*path, key), "should be text")
        texts[key] = str(parts[key].value) if key in parts else None
    if "source" not in parts:
        findings.add(node.key_place, path, "a 'value' needs a 'source' beside it")
    inner = parts["value"]
    if isinstance(inner.value, dict):
        findings.add(inner.place, path, "a sourced value is a number, a text or a list, no mapping")
        inner = replace(inner, value=None)
    return replace(inner, key_place=node.key_place, source=texts["source"], note=texts["note"])


# --- writing --------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """A text as YAML: plain where that reads back as the same text, else in double quotes."""
    if _PLAIN_KEY.fullmatch(text) and text not in _CONSTANTS and not _FLOAT.fullmatch(text):
        return text
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(
        c if c == " " or (c.isprintable() and c != "\ufeff") else f"\\U{ord(c):08x}" for c in escaped
    )


def _inline(node: Node) -> str:
    if isinstance(node.value, dict):
        body = "{" + ", ".join(f"{_quoted(key)}: {_inline(item)}" for key, item in node.value.items()) + "}"
    elif isinstance(node.value, list):
        body = "[" + ", ".join(map(_inline, node.value)) + "]"
    else:
        body = _quoted(node.value) if isinstance(node.value, str) else json.dumps(node.value)
    if node.source is None:
        return body
    note = f", note: {_quoted(node.note)}" if node.note is not None else ""
    return f"{{value: {body}, source: {_quoted(node.source)}{note}}}"


def write(node: Node, depth: int) -> Iterator[str]:
    """Block style, one entry a line; mappings of bare scalars and lists stand in line."""
    assert isinstance(node.value, dict)
    for key, item in node.value.items():
        indent = "  " * depth
        if isinstance(item.value, dict) and any(
            key == "sources" or child.source is not None or isinstance(child.value, dict | list)
            for child in item.value.values()
        ):
            yield f"{indent}{_quoted(key)}:\n"
            yield from write(item, depth + 1)
        else:
            yield f"{indent}{_quoted(key)}: {_inline(item)}\n"
