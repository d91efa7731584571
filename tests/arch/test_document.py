"""Descriptions: what is read, where errors are reported, `extends`, overrides, the resolved text."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pimloom.arch.base import Count, Description, Int, Strict, json_schema
from pimloom.arch.document import Document, InputError, kind_of, load, locate, shipped
from pimloom.arch.dram import Dram, load_dram
from pimloom.arch.machine import Arch, load_arch
from pimloom.arch.tree import Findings, Node, read_file
from pimloom.configs import FOLDERS, folder

SHIPPED = sorted({path for kind in FOLDERS for path in folder(kind).glob("*.yaml")})


class Part(Strict):
    size: Count
    weight: float | None = None


class Toy(Description):
    kind: Literal["model"]
    layers: Int
    label: str = ""
    on: bool = False
    items: list[Int] = []
    part: Part | None = None
    parts: dict[str, Part] = {}


HEAD = "kind: model\nversion: 1\nname: toy\n"


def toy(folder_: Path, text: str | bytes, *overrides: str) -> tuple[Toy, Document]:
    path = folder_ / "toy.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(Toy, "model", str(path), overrides)


def complaint(folder_: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        toy(folder_, text, *overrides)
    return str(error.value).replace(f"{folder_}/", "")


# --- scalars -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("+12", 12),
        ("-3", -3),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("1e9", 10**9),
        ("2.0", 2),
    ],
)
def test_integers(tmp_path: Path, text: str, value: int) -> None:
    assert toy(tmp_path, f"{HEAD}layers: {text}\n")[0].layers == value


@pytest.mark.parametrize(
    "text", ["1.5", "true", "'12'", "yes", "1_000", "1e-3", "null", ".nan", ".inf", "12 B", "[1]", "1:30"]
)
def test_no_integers(tmp_path: Path, text: str) -> None:
    assert complaint(tmp_path, f"{HEAD}layers: {text}\n").startswith(
        "toy.yaml:4:9: layers: should be a valid integer, not "
    )


@pytest.mark.parametrize(
    "text", ["on", "yes", "no", "off", "True", "y", "2026-11-22", "1_000", "~x", "12:30:45"]
)
def test_texts_that_yaml_1_1_takes_for_something_else(tmp_path: Path, text: str) -> None:
    assert toy(tmp_path, f"{HEAD}layers: 1\nlabel: {text}\n")[0].label == text


def test_floats(tmp_path: Path) -> None:
    model, _ = toy(tmp_path, f"{HEAD}layers: 1\npart: {{size: 1, weight: 1e-3}}\n")
    assert model.part == Part(size=1, weight=1e-3)


# --- errors and their positions ----------------------------------------------------------------------------

BAD = {
    "unknown key": ("layer: 2\nlayers: 1", "toy.yaml:4:1: layer: unknown key (did you mean 'layers'?)"),
    "unknown key, nothing near": ("layers: 1\nqqq: 2", "toy.yaml:5:1: qqq: unknown key"),
    "unknown key inside": (
        "layers: 1\npart:\n  size: 1\n  wieght: 2",
        "toy.yaml:7:3: part.wieght: unknown key (did you mean 'weight'?)",
    ),
    "unknown key in a named entry": (
        "layers: 1\nparts:\n  a: {size: 1, seize: 2}",
        "toy.yaml:6:16: parts.a.seize: unknown key (did you mean 'size'?)",
    ),
    "missing key": ("label: x", "toy.yaml:1:1: layers: missing"),
    "missing key inside": ("layers: 1\nparts:\n  a:\n    weight: 2", "toy.yaml:6:3: parts.a.size: missing"),
    "duplicate key": (
        "layers: 1\nlayers: 2",
        "toy.yaml:5:1: layers: duplicate key; it stands in line 4 already",
    ),
    "duplicate key inside": (
        "layers: 1\npart: {size: 1, size: 1}",
        "toy.yaml:5:17: part.size: duplicate key; it stands in line 5 already",
    ),
    "duplicate in quotes": (
        'layers: 1\n"layers": 1',
        "toy.yaml:5:1: layers: duplicate key; it stands in line 4 already",
    ),
    "wrong type": ("layers: many", "toy.yaml:4:9: layers: should be a valid integer, not 'many'"),
    "wrong type in a list": (
        "layers: 1\nitems: [1, x]",
        "toy.yaml:5:12: items.1: should be a valid integer, not 'x'",
    ),
    "out of range": (
        "layers: 1\npart: {size: 0}",
        "toy.yaml:5:14: part.size: should be greater than or equal to 1, not 0",
    ),
    "mapping for a number": (
        "layers: {a: 1}",
        "toy.yaml:4:9: layers: should be a valid integer, not a mapping",
    ),
    "number for a mapping": (
        "layers: 1\npart: 3",
        "toy.yaml:5:7: part: should be a mapping of keys to values, not 3",
    ),
    "several at once": (
        "lable: x\nlayers: []\npart: {size: 0}\nlayers: 3",
        "toy.yaml:4:1: lable: unknown key (did you mean 'label'?)\n"
        "toy.yaml:5:9: layers: should be a valid integer, not a list\n"
        "toy.yaml:6:14: part.size: should be greater than or equal to 1, not 0\n"
        "toy.yaml:7:1: layers: duplicate key; it stands in line 5 already",
    ),
    "alias": (
        "layers: &a 1\nitems: [*a]",
        "toy.yaml:5:9: items.0: the alias '*a': write the value out, or use 'extends'",
    ),
    "tag": (
        "layers: !!int 3",
        "toy.yaml:4:9: layers: the tag 'tag:yaml.org,2002:int': tags have no meaning here",
    ),
    "object": (
        "layers: 1\nlabel: !!python/object/apply:os.system [ls]",
        "toy.yaml:5:8: label: the tag 'tag:yaml.org,2002:python/object/apply:os.system': "
        "tags have no meaning here",
    ),
    "key that is a list": (
        "layers: 1\n[a, b]: 1",
        "toy.yaml:5:1: a key must be a plain word of at most 100 characters",
    ),
    "long key": (
        "layers: 1\n" + "k" * 101 + ": 1",
        "toy.yaml:5:1: a key must be a plain word of at most 100 characters",
    ),
    "second document": (
        "layers: 1\n---\na: 1",
        "toy.yaml:5:1: a second document starts here; one file holds one",
    ),
    "unknown source": (
        "layers: {value: 1, source: pap}\nsources: {paper: X}",
        "toy.yaml:4:17: layers: the source 'pap' is not among the 'sources' (did you mean 'paper'?)",
    ),
    "value without source": (
        "layers: {value: 1}",
        "toy.yaml:4:1: layers: a 'value' needs a 'source' beside it",
    ),
    "key beside value": (
        "layers: {value: 1, source: paper, nota: x}\nsources: {paper: X}",
        "toy.yaml:4:35: layers.nota: unknown key beside 'value' (did you mean 'note'?)",
    ),
    "sourced value of the wrong type": (
        "layers: {value: x, source: paper}\nsources: {paper: X}",
        "toy.yaml:4:17: layers: should be a valid integer, not 'x'",
    ),
    "huge number": ("layers: " + "9" * 5000, "toy.yaml:4:9: layers: a number of 5000 digits"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_bad_documents(tmp_path: Path, body: str, message: str) -> None:
    assert complaint(tmp_path, f"{HEAD}{body}\n") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "toy.yaml:1:1: a description is a mapping of keys to values; this is empty"),
        ("# nothing\n", "toy.yaml:1:1: a description is a mapping of keys to values; this is empty"),
        ("- 1\n- 2\n", "toy.yaml:1:1: a description is a mapping of keys to values; this is a list"),
        ("just words\n", "toy.yaml:1:1: a description is a mapping of keys to values; this is 'just words'"),
        ("a: 1\n\tb: 2\n", "toy.yaml:2:1: not YAML: found a tab character that violates indentation"),
        ("a: [1, 2\n", "toy.yaml:2:1: not YAML: did not find expected ',' or ']'"),
        (b"a: 1\nb: \xff\n", "toy.yaml:2:4: not UTF-8 text (byte 0xff)"),
        ("a: 1\n".encode("utf-16"), "toy.yaml:1:1: not UTF-8 text (byte 0xff)"),
        ("[" * 10_000, "toy.yaml:1:51: nested more than 50 levels deep"),
    ],
)
def test_no_mapping(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert complaint(tmp_path, text) == message


def test_keys_that_nest(tmp_path: Path) -> None:
    lines = complaint(tmp_path, "? " * 10_000).splitlines()
    assert lines[-1] == "toy.yaml:1:101: nested more than 50 levels deep"


def test_control_characters(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path, "a: 1\nb: \0\n") == "toy.yaml:2:4: not YAML: control characters are not allowed"
    )


def test_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert toy(tmp_path, b"\xef\xbb\xbf" + f"{HEAD}layers: 1\n".encode())[0].layers == 1


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    assert "the alias '*a0'" in complaint(tmp_path, "\n".join(lines))


def test_messages_of_documents_name_the_position(tmp_path: Path) -> None:
    _, document = toy(tmp_path, f"{HEAD}layers: 1\nparts:\n  a: {{size: 4}}\n")
    assert (
        str(document.error("parts.a.size", "too large"))
        == f"{tmp_path}/toy.yaml:6:13: parts.a.size: too large"
    )


# --- kinds and names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("kind: dram", "toy.yaml:1:7: kind: 'model' is wanted here, not 'dram'"),
        ("kind: modle", "toy.yaml:1:7: kind: 'model' is wanted here, not 'modle' (did you mean 'model'?)"),
        ("", "toy.yaml:1:1: kind: missing; it should be 'model'"),
    ],
)
def test_kind_is_checked(tmp_path: Path, kind: str, message: str) -> None:
    assert message in complaint(tmp_path, f"{kind}\nversion: 1\nname: toy\nlayers: 1\n".lstrip()).splitlines()


def test_kind_of(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("kind: arch\n")
    assert kind_of(str(path)) == "arch"
    path.write_text("kind: arhc\n")
    with pytest.raises(InputError, match=r"x.yaml:1:7: kind: .*'arhc' \(did you mean 'arch'\?\)"):
        kind_of(str(path))
    path.write_text("name: x\n")
    with pytest.raises(
        InputError, match=r"x.yaml:1:1: kind: missing; it should be one of dram, memory, arch, "
    ):
        kind_of(str(path))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        kind_of(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pim-gtp",
            "no arch description 'pim-gtp' is shipped (did you mean 'pim-gpt'?); there are: pim-gpt, "
            "pim-gpt-aim-timing; a file is named by its path, such as ./my.yaml",
        ),
        ("./none.yaml", "'none.yaml': no such file"),
        ("none.yml", "'none.yml': no such file"),
        (".", "no arch description '.' is shipped"),
        ("", "no arch description '' is shipped"),
        ("a\0b", "no arch description 'a\\x00b' is shipped"),
        ("/a\0b", "'/a\\x00b': no such file"),
        ("/", "'/': no such file"),
    ],
)
def test_what_does_not_exist(name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_arch(name)
    assert str(error.value).startswith(message)


def test_family_bases_are_neither_listed_nor_loaded() -> None:
    assert {"gddr6_aim", "gddr6_pim_gpt"} <= set(shipped("dram"))
    assert not {"gddr6_pim", "gddr6"} & set(shipped("dram"))
    with pytest.raises(InputError, match="abstract: this description is only there to be extended"):
        load_dram("gddr6_pim")


# --- extends -----------------------------------------------------------------------------------------------


def family(folder_: Path, **files: str) -> None:
    for name, text in files.items():
        (folder_ / f"{name}.yaml").write_text(text)


def test_a_child_wins_and_null_removes_a_named_entry(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    family(
        tmp_path,
        base=f"{HEAD}layers: 1\nlabel: base\nitems: [1, 2]\npart: {{size: 1, weight: 2}}\n"
        "parts: {a: {size: 1}, b: {size: 2}}\n",
    )
    family(
        tmp_path / "sub",
        middle="extends: ../base.yaml\nkind: model\nlabel: middle\nparts: {a: null, c: {size: 3}}\n",
    )
    text = (
        "extends: sub/middle.yaml\nkind: model\nitems: [3]\npart: {weight: null}\nparts: {b: {weight: 9}}\n"
    )
    model, document = toy(tmp_path, text)
    assert model == Toy(
        kind="model",
        version=1,
        name="toy",
        layers=1,
        label="middle",
        items=[3],
        part=Part(size=1, weight=None),
        parts={"b": Part(size=2, weight=9), "c": Part(size=3)},
    )
    assert "extends" not in document.text()


def test_errors_name_the_file_that_holds_the_value(tmp_path: Path) -> None:
    family(tmp_path, base=f"{HEAD}layers: x\n")
    text = "extends: ./base.yaml\nkind: model\nlable: a\n"
    assert complaint(tmp_path, text) == (
        "base.yaml:4:9: layers: should be a valid integer, not 'x'\n"
        "toy.yaml:3:1: lable: unknown key (did you mean 'label'?)"
    )


def test_circles(tmp_path: Path) -> None:
    family(tmp_path, a="extends: ./toy.yaml\nkind: model\n")
    text = complaint(tmp_path, f"extends: ./a.yaml\n{HEAD}layers: 1\n")
    assert (
        text
        == "a.yaml:1:10: extends: these files extend each other in a circle: toy.yaml -> a.yaml -> toy.yaml"
    )
    text = complaint(tmp_path, f"extends: ./toy.yaml\n{HEAD}layers: 1\n")
    assert text == "toy.yaml:1:10: extends: these files extend each other in a circle: toy.yaml -> toy.yaml"


def test_what_cannot_be_extended(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path, f"extends: ./no.yaml\n{HEAD}layers: 1\n")
        == "toy.yaml:1:10: extends: 'no.yaml': no such file"
    )
    assert "extends: should be a name or a path, not 3" in complaint(
        tmp_path, f"extends: 3\n{HEAD}layers: 1\n"
    )
    family(tmp_path, other="kind: dram\n")
    assert "other.yaml:1:7: kind: 'model' is wanted here" in complaint(
        tmp_path, f"extends: ./other.yaml\n{HEAD}layers: 1\n"
    )


def test_a_source_key_keeps_its_meaning(tmp_path: Path) -> None:
    family(tmp_path, base=f"{HEAD}sources: {{paper: A}}\nlayers: {{value: 1, source: paper}}\n")
    assert complaint(tmp_path, "extends: ./base.yaml\nkind: model\nsources: {paper: B}\n") == (
        "toy.yaml:3:11: sources.paper: this key means something else in base.yaml:4; choose another"
    )


def test_a_machine_names_its_memory(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "extends: pim-gpt\nkind: arch\nname: my\ndram: {extends: gddr6_aim, channels: 2}\n"
    )
    arch, document = load_arch(str(tmp_path / "my.yaml"))
    assert (arch.name, arch.dram.name, arch.dram.channels, arch.dram.clock_Hz) == (
        "my",
        "gddr6_aim",
        2,
        2 * 10**9,
    )
    assert arch.pim == load_arch("pim-gpt")[0].pim
    # Nothing of the other memory is left.
    assert "aim_preset_ns" not in document.text()


def test_a_machine_changes_the_memory_of_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("extends: pim-gpt\nkind: arch\nname: my\ndram: {channels: 2}\n")
    arch, _ = load_arch(str(tmp_path / "my.yaml"))
    assert (arch.dram.name, arch.dram.channels) == ("gddr6_pim_gpt", 2)


# --- overrides ---------------------------------------------------------------------------------------------

BODY = f"{HEAD}layers: 1\nitems: [1, 2]\nparts: {{a: {{size: 1}}}}\n"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("layers=7", {"layers": 7}),
        ("layers = 7", None),
        ("layers=1e3", {"layers": 1000}),
        ("label=a=b", {"label": "a=b"}),
        ("label=''", {"label": ""}),
        ("on=true", {"on": True}),
        ("items=[3]", {"items": [3]}),
        ("items.1=5", {"items": [1, 5]}),
        ("parts.a.size=4", {"parts": {"a": Part(size=4)}}),
        ("parts.a={weight: 2}", {"parts": {"a": Part(size=1, weight=2)}}),
        ("parts.a.weight=0.5", {"parts": {"a": Part(size=1, weight=0.5)}}),
        ("parts.a=null", {"parts": {}}),
        ("part={size: 3}", {"part": Part(size=3)}),
        ("part.size=3", {"part": Part(size=3)}),
    ],
)
def test_overrides(tmp_path: Path, override: str, expected: dict[str, Any] | None) -> None:
    model, document = toy(tmp_path, BODY, override)
    assert model == toy(tmp_path, BODY)[0].model_copy(update=expected or {"layers": 7})
    assert toy(tmp_path, document.text())[0] == model


def test_later_overrides_win(tmp_path: Path) -> None:
    assert toy(tmp_path, BODY, "layers=2", "layers=3")[0].layers == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layer=3", "-o layer=3:1:1: layer: there is no 'layer' to override (did you mean 'layers'?)"),
        ("parts.b.size=3", "-o parts.b.size=3:1:1: parts.b.size: there is no 'b' to override"),
        (
            "parts.a.sise=3",
            "-o parts.a.sise=3:1:1: parts.a.sise: there is no 'sise' to override (did you mean 'size'?)",
        ),
        ("layers.x=3", "-o layers.x=3:1:1: layers.x: there is no 'x' to override"),
        ("items.2=3", "-o items.2=3:1:1: items.2: there is no '2' to override"),
        ("items.01=3", "-o items.01=3:1:1: items.01: there is no '01' to override"),
        ("layers", "-o layers:1:1: an override is written key=value, such as dram.channels=16"),
        ("=3", "-o =3:1:1: an override is written key=value, such as dram.channels=16"),
        ("a..b=3", "-o a..b=3:1:1: an override is written key=value, such as dram.channels=16"),
        ("layers=", "-o layers=:1:8: layers: should be a valid integer, not null"),
        ("layers=x", "-o layers=x:1:8: layers: should be a valid integer, not 'x'"),
        ("layers=[1", "-o layers=[1:1:8: not YAML: did not find expected ',' or ']'"),
        (
            "parts.a.size=0",
            "-o parts.a.size=0:1:14: parts.a.size: should be greater than or equal to 1, not 0",
        ),
        (
            "parts.a={size: 0}",
            "-o parts.a={size: 0}:1:16: parts.a.size: should be greater than or equal to 1, not 0",
        ),
        ("label=\udcff", "-o label=\udcff:1:7: not valid Unicode"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    assert complaint(tmp_path, BODY, override) == message


# --- sources and the resolved text -------------------------------------------------------------------------


def test_sources(tmp_path: Path) -> None:
    text = f"{HEAD}sources: {{paper: 'X, table 1'}}\nlayers: {{value: 2, source: paper, note: odd}}\n"
    _, document = toy(tmp_path, f"{text}items: {{value: [1, 2], source: paper}}\n")
    assert document.sources() == {"layers": "X, table 1; odd", "items": "X, table 1"}


def test_sources_inside_the_memory_of_a_machine() -> None:
    sources = load_arch("pim-gpt")[1].sources()
    assert sources["dram.timing.nRP"].startswith("PIM-GPT, configuration table, recalled")
    assert sources["pim.buffer_B"].startswith("IANUS")


@pytest.mark.parametrize("name", shipped("arch"))
def test_resolved_machines_load_again_to_the_same(tmp_path: Path, name: str) -> None:
    model, document = load_arch(name, ["dram.timing.nWTR=7", "asic.clock_Hz=100e6"])
    path = tmp_path / "resolved.yaml"
    path.write_text(document.text())
    again, document_again = load_arch(str(path))
    assert again == model
    assert document_again.text() == document.text()
    assert document_again.sources() == document.sources()


@pytest.mark.parametrize("name", shipped("dram"))
def test_resolved_memories_load_again_to_the_same(tmp_path: Path, name: str) -> None:
    model, document = load_dram(name)
    path = tmp_path / "resolved.yaml"
    path.write_text(document.text())
    assert load_dram(str(path))[0] == model


CHARACTERS = st.characters(exclude_categories=["Cs"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(CHARACTERS)
    | st.sampled_from(["true", "1e9", "null", "~", "- a", "a: b", "# x", "0x1", "\x85", "\ufeff"])
)
def test_any_text_survives_the_resolved_file(tmp_path: Path, label: str) -> None:
    _, document = toy(tmp_path, BODY)
    value = document.root.value
    assert isinstance(value, dict)
    place = document.root.place
    changed = Document("model", Node(value | {"label": Node(label, place, place)}, place, place))
    assert toy(tmp_path, changed.text())[0].label == label


# --- whatever is in a file ---------------------------------------------------------------------------------


def try_to_load(cls: type[Arch] | type[Dram], kind: str, path: Path, *overrides: str) -> None:
    try:
        _, document = load(cls, kind, str(path), overrides)
    except InputError as error:
        assert str(error)
    else:
        assert document.text()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda s: s.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_description_or_an_input_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    try_to_load(Arch, "arch", path)


FRAGMENTS = [
    "",
    "\n",
    " ",
    "\t",
    ":",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "*a",
    "&a ",
    "!!x ",
    "? ",
    "null",
    "-1",
    "1e99",
    "0",
    "'",
    '"',
    "|",
    "\0",
]


@pytest.fixture(scope="module")
def resolved() -> str:
    """A whole machine in one text of half the usual length: without notes and sources."""
    return load_arch("pim-gpt")[1].text()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_machine_is_a_description_or_an_input_error(
    tmp_path: Path, resolved: str, data: st.DataObject
) -> None:
    text = resolved
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 12))
        text = text[:start] + data.draw(st.sampled_from(FRAGMENTS)) + text[start + length :]
    path = tmp_path / "mutated.yaml"
    path.write_text(text)
    try_to_load(Arch, "arch", path)


VALUES = st.sampled_from(
    [
        "0",
        "-1",
        "1",
        "1e6",
        "1e300",
        "-1e300",
        "null",
        "true",
        "x",
        "[1]",
        "{a: 1}",
        "",
        "0.5",
        "[[[",
        "9" * 50,
    ]
)


@settings(max_examples=150)
@given(st.data())
def test_any_value_anywhere_is_accepted_or_an_input_error(data: st.DataObject) -> None:
    paths = [".".join(map(str, path)) for path, _ in load_arch("pim-gpt")[1].root.walk() if path]
    changes = data.draw(st.lists(st.tuples(st.sampled_from(paths), VALUES), min_size=1, max_size=3))
    try:
        arch, _ = load_arch("pim-gpt", [f"{path}={value}" for path, value in changes])
    except InputError as error:
        assert str(error)
    else:
        assert arch.tables().reach.min() >= 0


# --- what is shipped ---------------------------------------------------------------------------------------


def numbers_without_source(node: Node, path: str, sourced: bool = False) -> list[str]:
    sourced = sourced or node.source is not None
    children: list[tuple[Any, Node]] = []
    if isinstance(node.value, dict):
        children = list(node.value.items())
    elif isinstance(node.value, list):
        children = list(enumerate(node.value))
    elif isinstance(node.value, int | float) and not isinstance(node.value, bool) and not sourced:
        return [path]
    return [
        found for key, child in children for found in numbers_without_source(child, f"{path}.{key}", sourced)
    ]


FACTS = [path for path in SHIPPED if path.parent != folder("sweep")]
"""What a sweep goes through are questions, not facts."""


@pytest.mark.parametrize("path", FACTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_number_has_a_source(path: Path) -> None:
    findings = Findings()
    root = read_file(path, findings)
    findings.raise_if_any()
    assert isinstance(root.value, dict)
    # `version` is the version of the format; a table of shapes can be explained as a whole, by its name.
    tables = {"version"} | (
        root.value.keys() & root.value["sources"].plain().keys() if "sources" in root.value else set()
    )
    kept = {key: node for key, node in root.value.items() if key not in tables}
    assert numbers_without_source(Node(kept, root.place, root.place), "") == []


@pytest.mark.parametrize("kind", FOLDERS)
def test_shipped_descriptions_say_their_kind_and_name(kind: str) -> None:
    for name in shipped(kind):
        root = read_file(locate(kind, name), Findings()).plain()
        assert (root["kind"], root["name"]) == (kind, name)


def test_json_schema() -> None:
    schema = json_schema(Arch)
    lanes = schema["$defs"]["Pim"]["properties"]["lanes"]["anyOf"]
    assert lanes[0]["type"] == "integer"
    assert lanes[1]["properties"]["value"] == lanes[0]
    assert lanes[1]["required"] == ["value", "source"]
    timing = schema["$defs"]["Dram"]["properties"]["timing"]
    assert {"type", "anyOf"} & timing.keys() == {"type"}
    for part in (schema, schema["$defs"]["Dram"]):
        assert part["properties"]["extends"] == {"type": "string"}
        assert part["additionalProperties"] is False
        assert "required" not in part


def test_reading_descriptions_needs_no_numpy() -> None:
    """Loading it takes longer than all else that this import does."""
    code = "import sys; import pimloom.arch.document; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
