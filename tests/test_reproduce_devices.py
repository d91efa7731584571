"""Tables of cases: what is wrong with them, one case of every device and kind, and the page that they make."""

from pathlib import Path

import pytest

from pimloom.arch.tree import InputError
from pimloom.configs import folder
from pimloom.reports.cases import Row, read_rows
from pimloom.reports.validation import PARTS, TITLE, replace_part
from pimloom.reproduce_attacc import reproduce_steps, steps_markdown
from pimloom.reproduce_devices import (
    CENT_QUANTITIES,
    TABLES,
    cent_markdown,
    markdown,
    reproduce_cent,
    reproduce_device,
    run_row,
)
from tests.test_reproduce import assert_current

KIND = {"hbm-pim": "kernel", "aim": "kind", "attacc": "kind"}
BAR = {"hbm-pim": 0.1, "aim": 0.0, "attacc": 0.0}


def row(**values: str) -> Row:
    return Row(Path("cases.csv"), 7, values)


def complaint(path: Path, *columns: str) -> str:
    with pytest.raises(InputError) as error:
        read_rows(path, columns)
    return str(error.value)


# --- rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("999999999", 999999999)])
def test_counts(text: str, number: int) -> None:
    assert row(n=text).count("n") == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e3", " 1", "1000000000", "x", "٣", "²"])
def test_no_counts(text: str) -> None:
    with pytest.raises(InputError) as error:
        row(case="a", n=text).count("n")
    assert str(error.value) == (
        f"cases.csv:7:2: n: should be a whole number from 1 to 999999999, not {text!r}"
    )


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)])
def test_numbers(text: str, number: float) -> None:
    assert row(x=text).number("x") == number


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e999", "x"])
def test_no_numbers(text: str) -> None:
    with pytest.raises(InputError, match="^cases.csv:7:1: x: should be a number above 0, not "):
        row(x=text).number("x")


def test_texts() -> None:
    assert row(kind="gemv").text("kind", ("gemv", "add")) == "gemv"
    assert row(kind="anything").text("kind") == "anything"
    with pytest.raises(InputError) as error:
        row(case="a", level="b", kind="gem").text("kind", ("gemv", "add"))
    assert str(error.value) == (
        "cases.csv:7:3: kind: should be one of gemv, add, not 'gem' (did you mean 'gemv'?)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1:1: columns missing: case, cycles"),
        ("case,clocks\na,1\n", ":1:1: columns missing: cycles"),
        ("case,cycles\n", ": holds no case"),
        ("case,cycles\na,1\nb\n", ":3:1: 1 values, the header has 2"),
        ("case,cycles\na,1,2\n", ":2:1: 3 values, the header has 2"),
        ('case,cycles\n"a,1\n', ": not a table of comma-separated values: unexpected end of data"),
        (b"case,cycles\n\xff,1\n", ": not a table of comma-separated values: "),
    ],
)
def test_tables_that_are_none(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert complaint(path, "case", "cycles").startswith(f"{path}{message}")


def test_no_table(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none.csv").endswith("none.csv: No such file or directory")
    assert complaint(tmp_path).endswith("Is a directory")


def test_lines_are_counted_as_editors_do(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text('case,cycles,more\r\n"two\nlines",1,\r\nlast,2,x\r\n')
    first, last = read_rows(path, ["cycles"])
    assert (first.values["case"], last.line, last.count("cycles")) == ("two\nlines", 4, 2)


# --- cases --------------------------------------------------------------------------------------------------


def kinds() -> list[tuple[str, Row]]:
    """The first row of every device and kind, and of every level of AttAcc."""
    found = {}
    for device, table in TABLES.items():
        for r in read_rows(folder("published") / table.file, table.columns):
            found.setdefault((device, r.values[KIND[device]], r.values.get("level")), (device, r))
    return list(found.values())


@pytest.mark.parametrize(
    ("device", "case"), kinds(), ids=lambda x: x if isinstance(x, str) else x.text("case")
)
def test_a_case_of_every_kind(device: str, case: Row) -> None:
    outcome = run_row(case, TABLES[device])
    assert outcome.reference_cycles == case.count("cycles")
    assert abs(outcome.difference) <= BAR[device]
    assert (outcome.cycles_refreshed is None) == (device != "aim")
    if outcome.cycles_refreshed is not None:
        assert outcome.cycles_refreshed >= outcome.cycles
    assert outcome.as_json()["difference"] == outcome.cycles / outcome.reference_cycles - 1


def test_every_kind_is_among_them() -> None:
    asked = {(device, r.values[KIND[device]].split(" ")[0], r.values.get("level")) for device, r in kinds()}
    assert {kind for device, kind, _ in asked if device == "aim"} == {
        "gemv", "att_qk", "att_av", "ewmul", "ewmul+io", "block",
    }  # fmt: skip
    assert {kind for device, kind, _ in asked if device == "hbm-pim"} == {
        "gemv",
        "gemvtree",
        "add",
        "mul",
        "relu",
    }
    assert {level for device, _, level in asked if device == "attacc"} == {"bank", "bg", "buffer"}


def test_what_the_device_cannot_do_names_the_row() -> None:
    case = read_rows(folder("published") / "aim.csv", TABLES["aim"].columns)[0]
    case.values["channels_used"] = "33"
    with pytest.raises(InputError, match="aim.csv:2:1: "):
        run_row(case, TABLES["aim"])


def test_progress() -> None:
    told: list[tuple[int, int]] = []
    rows = reproduce_cent(None, lambda *step: told.append(step))
    assert told == [(n, len(rows)) for n in range(1, len(rows) + 1)]
    assert all(set(CENT_QUANTITIES) <= set(r) for r in rows)
    worst = max(abs(r[name]["difference"]) for r in rows for name in CENT_QUANTITIES)
    assert worst <= 0.005


# --- the page -----------------------------------------------------------------------------------------------


def test_parts_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "validation.md"
    replace_part(page, "attacc", ["| a |", "", "last"])
    replace_part(page, "aim", ["one"])
    first = page.read_text()
    assert first.startswith(f"{TITLE}\n")
    assert first.index(PARTS["aim"]) < first.index(PARTS["attacc"])
    assert first.count("<!-- aim -->") == first.count("<!-- end of aim -->") == 1
    replace_part(page, "aim", ["one"])
    assert page.read_text() == first
    replace_part(page, "aim", ["two"])
    assert page.read_text() == first.replace("\none\n", "\ntwo\n")


def test_a_page_of_another_form_is_begun_anew(tmp_path: Path) -> None:
    page = tmp_path / "validation.md"
    page.write_text("# Something\n\nold\n")
    replace_part(page, "aim", ["one"])
    assert page.read_text() == f"{TITLE}\n\n<!-- aim -->\n## {PARTS['aim']}\n\none\n<!-- end of aim -->\n"


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="validation.md"):
        replace_part(tmp_path / "none" / "validation.md", "aim", ["one"])
    page = tmp_path / "validation.md"
    page.write_bytes(b"\xff")
    with pytest.raises(InputError, match="validation.md"):
        replace_part(page, "aim", ["one"])


@pytest.mark.parametrize("device", TABLES)
def test_the_page_in_the_docs_is_current(device: str, tmp_path: Path) -> None:
    more = steps_markdown(reproduce_steps()) if device == "attacc" else []
    assert_current(device, [*markdown(device, reproduce_device(device)), *more], tmp_path)


def test_the_page_in_the_docs_is_current_for_cent(tmp_path: Path) -> None:
    assert_current("cent", cent_markdown(reproduce_cent()), tmp_path)
