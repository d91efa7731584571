"""A result as users hold it: typed, a table, a folder and back."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from pimloom.arch.document import InputError
from pimloom.arch.machine import load_arch
from pimloom.reports.baselines import Baseline
from pimloom.reports.result import Result, load
from pimloom.reports.tables import print_summary

FIGURES = ("latency", "latency_share", "energy_by_operator", "energy_share", "speedup", "energy_ratio")
FILES = {
    "result.json", "ops.parquet", "config.resolved.yaml", "model.resolved.yaml", "counts.json",
    "timeline.json", "provenance.json",
    *(f"figures/{name}.{suffix}" for suffix in ("png", "pdf") for name in FIGURES),
}  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_and_back(tiny: Result, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "some" / "where")
    assert files(folder).keys() == FILES
    assert {path.name for path in folder.parent.iterdir()} == {"where"}
    back = load(folder)
    assert back.summary == tiny.summary
    assert (back.arch, back.model, back.workload) == (tiny.arch, tiny.model, tiny.workload)
    assert back.energy() == tiny.energy()
    assert back.to_pandas().equals(tiny.to_pandas())
    assert back.energy_pJ == tiny.energy_pJ
    with pytest.raises(InputError, match="copy that folder"):
        back.save(tmp_path / "other")
    assert json.loads((folder / "provenance.json").read_text())["pimloom"]


def test_saving_again_gives_the_same_bytes(tiny: Result, tmp_path: Path) -> None:
    once, again = (files(tiny.save(tmp_path / name)) for name in ("a", "b"))
    assert {name for name in once if once[name] != again[name]} <= {"provenance.json"}
    (tmp_path / "a" / "mine.txt").write_text("kept")
    (tmp_path / "a" / "result.json").write_text("old")
    tiny.save(tmp_path / "a", figures=False)
    assert (tmp_path / "a" / "mine.txt").read_text() == "kept"
    assert (tmp_path / "a" / "result.json").read_bytes() == once["result.json"]


def test_nothing_of_an_older_result_stays(tiny: Result, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "a")
    (folder / "figures" / "mine.png").write_text("kept")
    tiny.save(folder, figures=False)
    assert files(folder).keys() == {name for name in FILES if "/" not in name} | {"figures/mine.png"}
    (folder / "figures" / "mine.png").unlink()
    tiny.save(folder, figures=False)
    assert not (folder / "figures").exists()


@pytest.mark.parametrize("name", ["config.resolved.yaml", "model.resolved.yaml"])
def test_a_foreign_folder_names_no_file_outside(tiny: Result, tmp_path: Path, name: str) -> None:
    folder = tiny.save(tmp_path / "a", figures=False)
    (tmp_path / "secret.yaml").write_text("key: of the house")
    path = folder / name
    path.write_text(f"extends: {tmp_path / 'secret.yaml'}\n" + path.read_text())
    with pytest.raises(InputError, match=f"{name}:1:1: extends: a resolved description extends nothing") as e:
        load(folder)
    assert "house" not in str(e.value)


def test_a_memory_of_a_foreign_folder_names_no_file_outside(tiny: Result, tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "a", figures=False) / "config.resolved.yaml"
    path.write_text(path.read_text().replace("\ndram:\n", "\ndram:\n  extends: ../secret.yaml\n"))
    with pytest.raises(InputError, match="dram.extends: a resolved description extends nothing"):
        load(path.parent)


def test_paths_that_cannot_be(tiny: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"^{path}: (is a file|cannot be written)"):
            tiny.save(path)
    with pytest.raises(InputError, match="holds no result"):
        load(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "counts.json").write_text("{}")
    with pytest.raises(InputError, match="holds no result that this version reads"):
        load(tmp_path)


def test_the_table_of_tasks(tiny: Result) -> None:
    assert tiny.record is not None
    table = tiny.to_pandas()
    steps = list(tiny.record.notes.steps())
    assert list(table.columns) == ["position", "op", "group", "unit", "begin_ns", "end_ns"]
    rows = list(table.itertuples(index=False, name=None))
    assert rows == [(s.position, s.name, s.group, s.unit, s.begin_ps / 1000, s.end_ps / 1000) for s in steps]


def test_what_is_shown(tiny: Result) -> None:
    html = tiny._repr_html_()
    assert "gpt2-tiny on pim-gpt" in html
    assert "tokens/s" in html
    assert "Result(workload=" in repr(tiny)
    console = Console(width=120)
    with console.capture() as said:
        print_summary(tiny.summary, console, tiny.baselines())
    text = said.get()
    for words in ("2 prompt + 3 new tokens", "average power", "without link, asic_sram", "n/a", "row hits",
                  "energy by operator", "padding in those rows",
                  "roofline [1]", "was not measured on any GPU", "speedup"):  # fmt: skip
        assert words in text


def test_names_from_outside_are_shown_as_they_are(tiny: Result) -> None:
    name = "x[/b] [red]y"
    told = dict(tiny.summary, model=name, arch=name, energy_left_out=[name])
    told["latency_share"], told["energy_by_operator_pJ"] = {name: 1.0}, {name: 1.0}
    elsewhere = [Baseline(name, "measured", 1.0, 1.0, name)]
    console = Console(width=200)
    with console.capture() as said:
        print_summary(told, console, elsewhere)
    text = said.get()
    assert f"{name} on {name}" in text
    assert f"without {name}" in text
    assert text.count(name) == 6


def test_another_machines_coefficients_need_the_same_commands(tiny: Result) -> None:
    other = load_arch("pim-gpt", ("dram.constraints.write_to_read=null",))[0]
    assert tiny.energy(other) == tiny.energy()
    dram = other.dram.model_copy(update={"commands": dict(list(other.dram.commands.items())[1:])})
    with pytest.raises(InputError, match="other commands"):
        tiny.energy(other.model_copy(update={"dram": dram}))
