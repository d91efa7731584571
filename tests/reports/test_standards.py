"""The pages of the memories: every value of the description is in them, with its source."""

import re
from pathlib import Path

import pytest

from pimloom.arch.document import shipped
from pimloom.arch.dram import load_dram
from pimloom.reports.standards import index, page, write_standards


@pytest.mark.parametrize("name", shipped("dram"))
def test_page_holds_every_timing_rule_and_source(name: str) -> None:
    dram, document = load_dram(name)
    lines = page(dram, document, f"{dram.name}.svg").splitlines()
    for timing, clocks in dram.timing.items():
        assert any(line.startswith(f"| `{timing}` | {clocks} |") for line in lines)
    for rule, what in dram.constraints.items():
        assert any(line.startswith(f"| {rule} |") and f"`{what.minimum}`" in line for line in lines)
    used = {node.source for _, node in document.root.walk() if node.source}
    listed = {line.split("`")[1] for line in lines if line.startswith("- `")}
    assert listed == used


@pytest.mark.parametrize("name", shipped("dram"))
def test_tables_are_whole(name: str) -> None:
    """Every row of a table has as many cells as its title."""
    blocks = page(*load_dram(name), "x.svg").split("\n\n")
    for block in (b for b in blocks if b.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_numbers_of_a_page() -> None:
    text = page(*load_dram("hbm3_6400"), "x.svg")
    assert "One clock is 0.3125 ns, half a CK." in text
    assert "| `nRCDRD` | 62 | 19.375 |" in text
    assert "| four_activates | pseudo-channel, window 4 |" in text
    assert "| read_to_read_stack | stack ID, siblings |" in text
    assert "| peak of a channel | 51.2 GB/s |" in text
    assert "| `IDD0` | not known |" in text


def test_index_lists_plain_memories_before_those_with_units() -> None:
    text = index([load_dram(name)[0] for name in ("gddr6_aim", "ddr4_2400")])
    assert text.index("ddr4_2400") < text.index("## With processing in the banks") < text.index("gddr6_aim")
    # 16 clocks to the read, 16 of latency, 4 of data; 420 of 9,360 clocks.
    assert "| 1 × 16 | 8 GiB | 19.2 GB/s | 30.0 ns | 4.5 % |" in text


def test_files_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = write_standards(tmp_path / "a"), write_standards(tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    names = {p.relative_to(tmp_path / "a").as_posix() for p in first}
    assert names == {
        "standards.md",
        *(f"standards/{name}.{suffix}" for name in shipped("dram") for suffix in ("md", "svg")),
    }
    # Every link of the index leads somewhere.
    text = (tmp_path / "a/standards.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((standards/[^)]+)\)", text)
    assert links and all((tmp_path / "a" / link).is_file() for link in links)
