"""Drawn kernels: every command of the log is in a box, and what is called padding is padding."""

from pathlib import Path

import pytest

from pimloom.arch.device import load_device
from pimloom.arch.document import shipped
from pimloom.reports.stream_diagram import (
    DATA,
    MOST_INCH,
    Box,
    Played,
    Tile,
    boxes,
    panels,
    play,
    save_scene,
    stream_diagram,
)


@pytest.fixture(scope="module", params=shipped("device"))
def played(request: pytest.FixtureRequest) -> list[Played]:
    return play(load_device(request.param)[0])


def count(box: Box) -> int:
    """Commands of a box, by its text."""
    return int(box.lines[0].partition(" ×")[2] or 1)


def test_every_command_of_the_first_scene_is_in_a_box(played: list[Played]) -> None:
    scene = played[0]
    names = scene.device.dram.command_names
    shown = dict.fromkeys(names, 0)
    for box in boxes(scene):
        if box.lane != DATA:
            shown[box.lines[0].partition(" ×")[0]] += count(box)
    assert shown == {name: int((scene.log[:, 1] == i).sum()) for i, name in enumerate(names)}


def test_boxes_of_commands_do_not_overlap(played: list[Played]) -> None:
    for scene in played:
        for lane in (0, 1):
            mine = [box for box in boxes(scene) if box.lane == lane]
            assert all(a.end <= b.start for a, b in zip(mine, mine[1:], strict=False))


def test_a_full_tile_has_no_padding_and_a_tail_has(played: list[Played]) -> None:
    def used(scene: Played) -> list[str]:
        return [line for box in boxes(scene) for line in box.lines if line.endswith(" used")]

    broadcast, tail, padding = map(used, played)
    assert set(broadcast) == {"100 % used"}
    assert tail[0] == "100 % used" and tail[-1] != "100 % used"
    assert "100 % used" not in padding


@pytest.mark.parametrize(
    ("device", "tile"),
    [
        ("newton", (16, 512, 16)),
        ("gddr6-aim", (16, 1024, 16)),
        # 8 units of 8 accumulators by 8 registers of 16 lanes, in one of two ranks.
        ("hbm2-pim", (64, 128, 16)),
        # Bank groups of both pseudo-channels; four units share a product.
        ("attacc-bank", (16, 2048, 64)),
        ("attacc-bg", (16, 512, 16)),
        ("attacc-buffer", (2, 4096, 16)),
    ],
)
def test_tiles(device: str, tile: tuple[int, int, int]) -> None:
    assert Tile.of(load_device(device)[0]) == tile


def test_what_the_tail_of_aim_says() -> None:
    tail = play(load_device("gddr6-aim")[0])[1]
    found = boxes(tail)
    data = [box.lines for box in found if box.lane == DATA]
    # Both parts of the vector, each with the zeros that begin its sums; the host adds the parts of the results.
    assert data == [
        ("x 0–1023",), ("zeros",), ("y 0–15",), ("x 1024", "+ 15 zeros"), ("zeros",), ("y 0–15",),
    ]  # fmt: skip
    macs = [box.lines for box in found if box.lines[0].startswith("MAC16")]
    assert macs == [("MAC16 ×64", "row 0", "100 % used"), ("MAC16", "row 1", "6 % used")]


def test_padding_of_newton_is_said() -> None:
    padding = play(load_device("newton")[0])[2]
    said = [box.lines for box in boxes(padding) if box.lane == DATA]
    assert said == [("x 0–26", "+ 5 zeros"), ("y 0–15",), ("y 16", "+ 15 unused")]


def test_strips_hold_all_boxes_in_order(played: list[Played]) -> None:
    for scene in played:
        drawn = boxes(scene)
        strips = panels(drawn, MOST_INCH)
        assert [box for strip in strips for box, _, _ in strip.boxes] == drawn
        assert all(strip.width <= MOST_INCH for strip in strips)
        for strip in strips:
            for box, left, right in strip.boxes:
                assert 0 <= left < right <= strip.width + 1e-9, box


def test_as_many_strips_as_needed() -> None:
    row = [Box(0, 100 * i, 100 * i + 1, ("ACT",), "black") for i in range(9)]
    assert len(panels(row, 100.0)) == 1
    two = panels(row, 2.5)
    # Of about the same length, not one full and one with what is left.
    assert [len(strip.boxes) for strip in two] == [5, 4]


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_same_bytes_for_the_same_device(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        save_scene(play(load_device("attacc-bg")[0])[1], tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_data_lane_is_drawn_where_there_are_data() -> None:
    figure = stream_diagram(play(load_device("hbm2-pim")[0])[0])
    labels = [{text.get_text() for text in ax.texts} for ax in figure.axes]
    assert ["data" in names for names in labels] == [True, False]
