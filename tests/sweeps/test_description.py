"""How sweeps are written: axes, ranges, grids, and what is said about those that are wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.document import InputError, shipped
from pimloom.sweeps.description import DIGITS, Axis, load_sweep, make_sweep
from tests.sweeps.files import HEAD, from_file


def axis(text: str) -> Axis:
    (only,) = make_sweep(["gpt2-small"], ["pim-gpt"], [text]).grids[0].axes
    return only


def values(text: str) -> list[object]:
    return [leaf.plain() for (leaf,) in axis(text).steps]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dram.channels=4", [4]),
        ("dram.channels=4,8,16", [4, 8, 16]),
        ("dram.channels=[4, 8]", [4, 8]),
        ("dram.channels= 4 , 8", [4, 8]),
        ("dram.channels=4:16:4", [4, 8, 12, 16]),
        ("dram.channels=4:17:4", [4, 8, 12, 16]),
        ("dram.channels=1:64:x2", [1, 2, 4, 8, 16, 32, 64]),
        ("dram.channels=1:64:*4", [1, 4, 16, 64]),
        ("dram.channels=1:63:×4", [1, 4, 16]),
        ("dram.channels=1,4:16:x2,20", [1, 4, 8, 16, 20]),
        ("asic.clock_Hz=1e8:1e9:lin4", [100000000, 400000000, 700000000, 1000000000]),
        ("asic.clock_Hz=1e8:1e9:log5", [100000000, 177827941, 316227766, 562341325, 1000000000]),
        ("asic.clock_Hz=1e8,1e9", [100000000, 1000000000]),
        ("asic.clock_Hz=1:1e30:x1e10", [1, 10**10, 10**20, int(1e30)]),
        ("asic.sram_B=1000000000001:1000000000601:300", [1000000000001, 1000000000301, 1000000000601]),
        ("energy.mac_read_factor=1:2:lin3", [1, 1.5, 2]),
        ("energy.mac_read_factor=0.1:0.5:0.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("mapping.barrier=instruction,data", ["instruction", "data"]),
        ("mapping.max_tokens=null,512", [None, 512]),
        ("workload.head=true,false", [True, False]),
        ("workload.generate=1:4:1", [1, 2, 3, 4]),
        ("model.layers=1:3:1", [1, 2, 3]),
    ],
)
def test_axes(text: str, expected: list[object]) -> None:
    found = values(text)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_keys_that_change_together() -> None:
    same = axis("dram.io.rate_bps,link.rate_bps=8e9,16e9")
    assert same.keys == ("dram.io.rate_bps", "link.rate_bps")
    assert [[leaf.plain() for leaf in step] for step in same.steps] == [[8 * 10**9] * 2, [16 * 10**9] * 2]
    each = axis("dram.channels, asic.clock_Hz=[4, 1e8],[8, 2e8]")
    assert [[leaf.plain() for leaf in step] for step in each.steps] == [[4, 10**8], [8, 2 * 10**8]]


@given(st.integers(1, 50), st.integers(1, 60), st.integers(1, 9))
def test_arithmetic_ranges(first: int, width: int, step: int) -> None:
    text = f"workload.generate={first}:{first + width}:{step}"
    assert values(text) == list(range(first, first + width + 1, step))


@given(st.floats(1e-3, 1e3), st.floats(1.01, 1e4), st.integers(2, 40))
def test_logarithmic_ranges(first: float, ratio: float, count: int) -> None:
    last = first * ratio
    found = values(f"energy.io_pJ_per_bit={first!r}:{last!r}:log{count}")
    assert len(found) == count
    for i, value in enumerate(found):
        assert isinstance(value, int | float)
        expected = math.exp(math.log(first) + i / (count - 1) * math.log(ratio))
        assert value == pytest.approx(expected, rel=10.0 ** (2 - DIGITS))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dram.channels", "1:1: an axis is written KEY=VALUES"),
        ("dram.channels=", "1:1: an axis is written KEY=VALUES"),
        ("=4", "1:1: '': should be a dotted key"),
        ("dram..channels=4", "1:1: 'dram..channels': should be a dotted key"),
        ("dram.channels=4:8", "1:15: dram.channels: '4:8': a range is FIRST:LAST:STEP"),
        ("dram.channels=1,4:8:y2", "1:17: dram.channels: '4:8:y2': a range is FIRST:LAST:STEP"),
        ("dram.channels=4..8", "'4..8': a range is FIRST:LAST:STEP"),
        ("dram.channels=4-16", "'4-16': a range is FIRST:LAST:STEP"),
        ("asic.clock_Hz=1GHz:2GHz:log3", "'1GHz:2GHz:log3': a range is FIRST:LAST:STEP"),
        ("asic.clock_Hz=1e8:1e9:5", "for a number of values write linN or logN"),
        ("dram.channels=8:4:x2", "1:15: dram.channels: '8:4:x2': the first value should be less than the last"),
        ("dram.channels=4:8:x1", "the factor should be more than 1"),
        ("dram.channels=4:8:0", "the step should be more than 0"),
        ("dram.channels=0:8:x2", "values of a constant ratio are positive"),
        ("dram.channels=4:8:lin1", "should ask for 2 to 100000 values"),
        ("dram.channels=4:8:log2.5", "should ask for 2 to 100000 values"),
        ("dram.channels=0:1e9:1", "more than 100000 values"),
        ("dram.channels=1:1e400:lin5", "these numbers are too large"),
        ("dram.channels=1:1e400:log5", "these numbers are too large"),
        ("energy.io_pJ_per_bit=1e-300:1e300:log5", "positive, and not too far apart"),
        ("energy.io_pJ_per_bit=1:10:x1.0000001", "more than 100000 values"),
        ("dram.channels=1:60000:1,70000:130000:1", "more than 100000 values"),
        ("dram.channels,dram.rows=1:60000:1", "more than 100000 values"),
        ("dram.channels=1:4:log9", "the value 1 comes twice, perhaps after rounding"),
        ("dram.channels=4,8,4", "1:19: dram.channels: the value 4 comes twice"),
        ("dram.channels={a: 1}", "1:15: dram.channels: should be a list of values or a range"),
        ("dram.channels=[", "1:14: not YAML"),
        ("dram.channels,asic.clock_Hz=[4,1e8],[8]", "1:37: 1 values for the 2 keys dram.channels, asic.clock_Hz"),
        ("dram.channels,dram.channels=4", "an axis of this grid has this key already"),
        ("model=a,b", "several models are given as such"),
        ("arch=a,b", "several archs are given as such"),
    ],
)  # fmt: skip
def test_wrong_axes(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        axis(text)
    assert str(caught.value).startswith(f"-s {text}:1:")
    assert message in str(caught.value)


def test_one_key_in_two_axes() -> None:
    with pytest.raises(InputError, match="-s dram.channels=8:1:1: dram.channels: an axis of this grid has"):
        make_sweep(["gpt2-small"], ["pim-gpt"], ["dram.channels=4", "dram.channels=8"])


def test_a_value_for_what_is_swept() -> None:
    with pytest.raises(
        InputError, match="-o dram.channels=8:1:1: dram.channels: has no effect, as it is swept"
    ):
        make_sweep(["gpt2-small"], ["pim-gpt"], ["dram.channels=4"], ["dram.channels=8"])


def test_a_model_twice() -> None:
    with pytest.raises(InputError, match="models: 'gpt2-small' stands here twice"):
        make_sweep(["gpt2-small", "gpt2-small"], ["pim-gpt"], [])


def test_a_file(tmp_path: Path) -> None:
    request = from_file(
        tmp_path,
        """set: {workload.generate: 8, dram.channels: 4, mapping.max_tokens: null}
grids:
  clocks:
    asic.clock_Hz: 1e8:1e9:log3
    "dram.io.rate_bps, link.rate_bps": [8e9, 16e9]
  tokens: {workload.generate: [1, 2]}
""",
        ("workload.generate=16", "workload.batch=2"),
    )
    assert {o.key: o.leaf.plain() for o in request.fixed} == {
        "workload.generate": 16,
        "dram.channels": 4,
        "mapping.max_tokens": None,
        "workload.batch": 2,
    }
    assert [grid.name for grid in request.grids] == ["clocks", "tokens"]
    assert [axis.keys for axis in request.grids[0].axes] == [
        ("asic.clock_Hz",),
        ("dram.io.rate_bps", "link.rate_bps"),
    ]
    assert [grid.count for grid in request.grids] == [6, 2]
    assert request.count == 8


def test_a_file_without_grids_is_one_point_a_model_and_machine(tmp_path: Path) -> None:
    assert from_file(tmp_path, "").count == 1


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for file in ("a/config.json", "m.yaml"):
        (tmp_path / file).write_text("{}", encoding="utf-8")
    text = "kind: sweep\nversion: 1\nname: s\nmodels: [a/config.json, gpt2-small]\narchs: [./m.yaml]\n"
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    request = load_sweep(str(tmp_path / "s.yaml"))
    assert request.models == (str(tmp_path / "a" / "config.json"), "gpt2-small")
    assert request.archs == (str(tmp_path / "m.yaml"),)


def test_a_sweep_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        HEAD + "grids:\n  a: {dram.channels: [4]}\n  b: {dram.channels: [8]}\n", encoding="utf-8"
    )
    (tmp_path / "child.yaml").write_text(
        "extends: ./base.yaml\nkind: sweep\nversion: 1\nname: c\nmodels: [gpt3-xl]\ngrids: {a: null}\n",
        encoding="utf-8",
    )
    request = load_sweep(str(tmp_path / "child.yaml"))
    assert request.models == ("gpt3-xl",)
    assert [grid.name for grid in request.grids] == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {}\n", r"s.yaml:6:1: grid: unknown key \(did you mean 'grids'\?\)"),
        ("models: []\n", "s.yaml:6:1: models: duplicate key"),
        ("grids: {a: {dram.channels: {x: 1}}}\n", "s.yaml:6:28: dram.channels: should be a list of values or a range"),
        ("grids: {a: {dram.channels: []}}\n", "s.yaml:6:28: dram.channels: an axis needs values"),
        ("grids: {a: {dram.channels: 4,8}}\n", "s.yaml:6:31: 8: an axis needs values"),
        ("grids:\n  a:\n    dram.channels:\n", "s.yaml:8:19: dram.channels: an axis needs values"),
        ("grids: {'../a': {dram.channels: 4}}\n", r"s.yaml:6:9: grids.../a: a name here matches"),
        ("set: {dram.channels: 4}\ngrids: {a: {dram.channels: 8}}\n", "s.yaml:6:7: dram.channels: has no effect"),
        ("grids: {a: [1]}\n", "s.yaml:6:12: grids.a: should be a mapping of keys to values, not a list"),
        ("set: {'a,b': 1}\n", "s.yaml:6:7: 'a,b': should be a dotted key"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_file(tmp_path, text)


def test_values_that_look_alike_are_different() -> None:
    """Lists are compared as such, not as messages show them."""
    rules = [f"[bank, [ACT], [ACT], {clocks}]" for clocks in (40, 41)]
    assert len(axis(f"dram.constraints.row_cycle={','.join(rules)}").steps) == 2


def test_names_in_a_file_have_places(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = "kind: sweep\nversion: 1\nname: s\nmodels: [gpt2-smal, mine, ./mine]\narchs: [pim-gtp]\n"
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_sweep(str(tmp_path / "s.yaml"))
    first, second, third, fourth = str(caught.value).splitlines()
    assert first.startswith(
        f"{tmp_path}/s.yaml:4:10: models: no model description 'gpt2-smal' is shipped (did you"
    )
    assert second.startswith(f"{tmp_path}/s.yaml:4:21: models: no model description 'mine' is shipped")
    assert third == f"{tmp_path}/s.yaml:4:27: models: {tmp_path}/mine: this folder holds no config.json"
    assert fourth.startswith(
        f"{tmp_path}/s.yaml:5:9: archs: no arch description 'pim-gtp' is shipped (did you"
    )


def test_the_last_of_a_key_comes_last(tmp_path: Path) -> None:
    """As with `simulate`: also after one of what the key stands under."""
    given = ("pim.lanes=8", "pim={lanes: 4}", "pim.lanes=16")
    request = from_file(tmp_path, "set: {pim.lanes: 2}\n", given)
    assert [o.key for o in request.fixed] == ["pim", "pim.lanes"]
    assert request.fixed[-1].leaf.plain() == 16


@pytest.mark.parametrize("name", shipped("sweep"))
def test_shipped(name: str) -> None:
    assert load_sweep(name).count > 0
