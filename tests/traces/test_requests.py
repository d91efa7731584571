"""Requests: every form reads the same, and whatever is wrong with a file is named with its place."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.tree import InputError
from pimloom.traces import requests
from pimloom.traces.requests import HEADER, Requests, line_of, stream

FORMS = {
    "reference": f"{HEADER}\n0,R,0x40\n7,W,128\n137438953472,R,0x0\n",
    "dramsim3": "0x40 READ 0\n128 WRITE 7\n0x0 READ 137438953472\n",
    "ramulator1": "0x40 R\n128 W\n0x0 R\n",
    "ramulator2": "LD 0x40\nST 128\nLD 0x0\n",
}
WRITE, ADDRESS = [0, 1, 0], [64, 128, 0]
CYCLE = dict.fromkeys(FORMS, [0, 0, 0]) | dict.fromkeys(("reference", "dramsim3"), [0, 7, 2**37])
TEXTS = [
    lambda text: text,
    lambda text: text.removesuffix("\n"),
    lambda text: text.replace("\n", "\r\n"),
    lambda text: "\ufeff" + text,
    lambda text: "# é\n\n  \n" + text.replace("\n", "\n# -1 x\n\n \t#\n\n"),
    lambda text: text.lower(),
    lambda text: text.replace("0x", "0X0000000000000000000"),
    lambda text: text.replace(" ", " \t ").replace("\n", " \n  "),
]


def lists(path: Path, chunk: int = 1 << 18) -> list[list[int]]:
    pieces = list(stream(path, chunk))
    assert all(0 < len(values) <= chunk and values.flags.writeable for piece in pieces for values in piece)
    return [[int(n) for piece in pieces for n in piece[i]] for i in range(3)]


def write(folder: Path, text: str | bytes) -> tuple[Path, Path]:
    """The same text, plain and zipped; both names say nothing of that."""
    plain, zipped = folder / "plain", folder / "zipped"
    data = text if isinstance(text, bytes) else text.encode()
    plain.write_bytes(data)
    zipped.write_bytes(gzip.compress(data))
    return plain, zipped


def error(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(stream(path))
    return str(caught.value).removeprefix(str(path)).removeprefix(":").strip()


@pytest.mark.parametrize("change", TEXTS)
@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path: Path, form: str, change) -> None:
    for path in write(tmp_path, change(FORMS[form])):
        if form == "reference" and "\t" in change(" "):
            assert error(path) == f"1:1: 'cycle,op,address ', but a trace begins with {requests._KNOWN}"
            continue
        assert lists(path) == [CYCLE[form], WRITE, ADDRESS]
        assert lists(path, 2) == [CYCLE[form], WRITE, ADDRESS]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"1:1: the file is empty; a trace begins with {requests._KNOWN}"),
        ("# nothing\n\n", f"1:1: the file is empty; a trace begins with {requests._KNOWN}"),
        ("\nhello\n", f"2:1: 'hello', but a trace begins with {requests._KNOWN}"),
        ("cycle,op\n", f"1:1: 'cycle,op', but a trace begins with {requests._KNOWN}"),
        ("0,R,0x40\n", f"1:1: '0,R,0x40', but a trace begins with {requests._KNOWN}"),
        (f"{HEADER}\n0,R,0xg0\n", "2:5: address: '0xg0' is no whole number"),
        (f"{HEADER}\n0,R,ff\n", "2:5: address: 'ff' is no whole number; hexadecimal ones begin with 0x"),
        (f"{HEADER}\n0,R,\n", "2:5: address: '' is no whole number"),
        (f"{HEADER}\n0,R, 1\n", "2:5: address: ' 1' is no whole number"),
        (f"{HEADER}\n0,R,1.5\n", "2:5: address: '1.5' is no whole number"),
        (f"{HEADER}\n0,R,+1\n", "2:5: address: '+1' is no whole number"),
        (f"{HEADER}\n0,R,٣\n", "2:5: address: '٣' is no whole number"),
        (f"{HEADER}\n0,R,-64\n", "2:5: address: '-64' is out of range (0 to 2^62)"),
        (f"{HEADER}\n0,R,-0x40\n", "2:5: address: '-0x40' is out of range (0 to 2^62)"),
        (
            f"{HEADER}\n137438953473,R,0\n",
            "2:1: cycle: '137438953473' is out of range (0 to 2^37)",

        ),
        (
            f"{HEADER}\n0,R,0xffffffffffffffff\n",
            "2:5: address: '0xffffffffffffffff' is out of range (0 to 2^62)",
        ),
        (
            f"{HEADER}\n0,R,{'9' * 9999}\n",
            f"2:5: address: '{'9' * 56}... is out of range (0 to 2^62)",
        ),
        (f"{HEADER}\n0,R,0\n\n0,X,0\n", "4:3: op: unknown 'X', but should be R or W"),
        (f"{HEADER}\n0,,0\n", "2:3: op: unknown '', but should be R or W"),
        (f"{HEADER}\n0,R\n", "2:4: 2 fields, but a request of this trace has 3: cycle,op,address"),
        (f"{HEADER}\n0,R,1,2\n", "2:7: 4 fields, but a request of this trace has 3: cycle,op,address"),
        (f"{HEADER}\nLD 0x40\n", "2:8: 1 field, but a request of this trace has 3: cycle,op,address"),
        (f"{HEADER}\n{HEADER}\n", "2:1: cycle: 'cycle' is no whole number"),
        (f"{HEADER}\n1,R,2\r3,R,4\n", "2:9: 5 fields, but a request of this trace has 3: cycle,op,address"),
        ("0x40 RAED 1\n", "1:6: op: unknown 'RAED' (did you mean 'READ'?)"),
        ("0x40 READ 1\n# x\n0x40  READ\n", "3:11: 2 fields, but a request of this trace has 3: address op cycle"),
        ("0x40 READ 1\nLD 0x40\n", "2:8: 2 fields, but a request of this trace has 3: address op cycle"),
        ("0x40 READ 1\n0x40 R 1\n", "2:6: op: unknown 'R', but should be READ or WRITE"),
        ("LD 0x40\nSTR 0x40\n", "2:1: op: unknown 'STR' (did you mean 'ST'?)"),
        ("LD 0x40\n0x40 R\n", "2:1: op: unknown '0x40', but should be LD or ST"),
        ("0x40 R\nLD 0x40\n", "2:1: address: 'LD' is no whole number"),
        ("0x40 R\n\v0x40 R\n", r"2:1: address: '\x0b0x40' is no whole number"),
        (b"0x40 R\n# \xff\n0x40 W\n", "2:3: not UTF-8 text"),
        ("0x40 R\n".encode("utf-16"), "1:1: not UTF-8 text"),
        (b"0x40 R\n0x4\x000 R\n", r"2:1: address: '0x4\x000' is no whole number"),
        (f"{HEADER}\n# {'x' * 70000}\n", "2:1: a line of more than 65536 bytes"),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, text: str | bytes, message: str) -> None:
    for path in write(tmp_path, text):
        assert error(path) == message


def test_no_requests_are_a_trace(tmp_path: Path) -> None:
    for text in (HEADER, f"{HEADER}\n", f"#\n{HEADER}\r\n\n# end"):
        for path in write(tmp_path, text):
            assert lists(path) == [[], [], []]


def test_unreadable(tmp_path: Path) -> None:
    assert error(tmp_path / "none") == "cannot be read: No such file or directory"
    assert error(tmp_path) == "cannot be read: Is a directory"


def test_damaged_gzip(tmp_path: Path) -> None:
    data = gzip.compress(FORMS["reference"].encode())
    path = tmp_path / "t"
    for damaged in (data[:-9], data[:5], data[:-8] + b"12345678", data + b"rest", data[:12] + data[20:]):
        path.write_bytes(damaged)
        assert error(path).startswith("1:1: damaged gzip file: ")
    path.write_bytes(data + gzip.compress(b"9,W,64\n"))
    assert lists(path) == [[*CYCLE["reference"], 9], [*WRITE, 1], [*ADDRESS, 64]]


def test_a_line_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with path.open("wb") as file:
        file.write(b"0x40 R\n")
        file.truncate(1 << 30)
    assert error(path) == "2:1: a line of more than 65536 bytes"
    path.write_bytes(gzip.compress(b"0x40 R\n" + bytes(1 << 24)))
    assert error(path) == "2:1: a line of more than 65536 bytes"


@pytest.mark.parametrize("line", [b"1,R,0x40\n", b"\n", b"# a comment of some length\n"])
def test_memory_does_not_grow(tmp_path: Path, line: bytes) -> None:
    lines = (20 << 20) // len(line)
    path = tmp_path / "t"
    path.write_bytes(gzip.compress(f"{HEADER}\n".encode() + lines * line, 1))
    tracemalloc.start()
    n = sum(len(piece.cycle) for piece in stream(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == (lines if line[:1].isdigit() else 0)
    assert peak < 12 << 20


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [3, 7, 16, 40])
def test_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, size: int) -> None:
    monkeypatch.setattr(requests, "BLOCK_B", size)
    text = "# a\n\n" + FORMS[form].replace("\n", "\n#\n")
    for path in write(tmp_path, text):
        assert lists(path) == [CYCLE[form], WRITE, ADDRESS]
    for path in write(tmp_path, text + "x\n"):
        assert error(path).startswith(f"{text.count(chr(10)) + 1}:")


@pytest.mark.parametrize("form", FORMS)
def test_place_of_a_request(tmp_path: Path, form: str) -> None:
    column = {"reference": [5, 5, 16], "ramulator2": [4, 4, 4]}.get(form, [1, 1, 1])
    first = 5 if form == "reference" else 3
    for path in write(tmp_path, "# a\n\n" + FORMS[form].replace("\n", "\n\n")):
        places = [f"{path}:{first + 2 * n}:{column[n]}" for n in range(3)]
        assert [line_of(path, n) for n in range(3)] == places
        assert line_of(path, 3) == str(path)
    assert line_of("/dev/null", 0) == "/dev/null"


def word() -> st.SearchStrategy[str]:
    numbers = st.integers(-2, 2**64 + 2) | st.sampled_from(
        [0, 2**37, 2**37 + 1, 2**62, 2**62 + 1, 2**63, 2**64 - 1]
    )
    return st.one_of(
        numbers.map(str),
        numbers.map(hex),
        st.sampled_from(["R", "W", "r", "READ", "WRITE", "Write", "LD", "ST", "ld"]),
        st.text("0123456789abcdefxX+-.,#_\" '\t\r\v\0é", max_size=6),
    )


def line(form: requests._Form) -> st.SearchStrategy[str]:
    most = st.sampled_from([2**20, 2**37 + 1, 2**62 + 1])
    number = most.flatmap(lambda n: st.integers(0, n).map(str) | st.integers(0, n).map(hex))
    op = st.sampled_from(form.ops)
    blank = st.sampled_from(["", "", "", " ", "\t", "  "])
    healthy = st.tuples(*(op if field == "op" else number for field in form.fields))
    fields = st.one_of(healthy, healthy, healthy, healthy, st.lists(word(), max_size=4).map(tuple))
    return st.tuples(blank, fields, blank, st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\r\r\n"])).map(
        lambda parts: parts[0] + form.separator.join(parts[1]) + parts[2] + parts[3]
    )


@given(st.sampled_from([*FORMS]).flatmap(lambda name: st.tuples(st.just(name), lines_of(name))))
def test_quick_and_careful_parsers_agree(case: tuple[str, list[str]]) -> None:
    name, lines = case
    form = getattr(requests, f"_{name.upper()}")
    block = "".join(lines).encode()
    quick = requests._parse_quickly(block, form)
    if quick is not None:
        careful = requests._parse("t", 1, block, form)
        assert all(np.array_equal(a, b) for a, b in zip(quick, careful, strict=True))


def lines_of(name: str) -> st.SearchStrategy[list[str]]:
    return st.lists(line(getattr(requests, f"_{name.upper()}")), max_size=5)


def test_healthy_text_is_parsed_quickly() -> None:
    for name, text in FORMS.items():
        form = getattr(requests, f"_{name.upper()}")
        rows = text.removeprefix(f"{HEADER}\n")
        spaced = rows.replace(" ", " \t").replace("\n", " \r\n") if form.separator == " " else rows
        for case in (rows, rows.replace("\n", "\r\n"), f"# a\n{rows}#", spaced):
            found = requests._parse_quickly(case.encode(), form)
            assert isinstance(found, Requests)
            assert found.address.tolist() == ADDRESS


@given(st.binary(max_size=60), st.sampled_from(["", *FORMS]))
def test_garbage(tmp_path_factory: pytest.TempPathFactory, data: bytes, form: str) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(FORMS.get(form, "").encode() + data)
    try:
        list(stream(path))
    except InputError as caught:
        assert str(caught).startswith(f"{path}:")
