"""Devices: what is wrong with a description, and how a file changes the memory of the one it extends."""

from pathlib import Path

import pytest

from pimloom.arch.device import load_device
from pimloom.arch.document import shipped
from pimloom.arch.tree import InputError


def complaint(*overrides: str, name: str = "gddr6-aim") -> str:
    with pytest.raises(InputError) as error:
        load_device(name, overrides)
    return str(error.value)


def file(folder: Path, body: str) -> str:
    path = folder / "own.yaml"
    path.write_text(f"extends: gddr6-aim\nkind: device\nversion: 1\nname: own\n{body}")
    return str(path)


@pytest.mark.parametrize("name", shipped("device"))
def test_shipped_devices(name: str) -> None:
    device, _ = load_device(name)
    assert device.name == name
    assert device.units * device.unit.banks_per_unit == device.dram.banks
    assert device.elements_per_access * device.unit.element_B == device.dram.access_B


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("controller.blocking=[RDMAC17]", "controller.blocking.0: unknown command 'RDMAC17' (did you mean 'RDMAC16'?)"),
        ("controller.blocking=[RDMAC16, X]", "controller.blocking.1: unknown command 'X'"),
        ("controller.alone=[MAC17]", "controller.alone.0: unknown command 'MAC17' (did you mean 'MAC16'?)"),
        ("controller.modes.switch=TMOT", "controller.modes.switch: unknown command 'TMOT' (did you mean 'TMOD'?)"),
        ("controller.modes.other=[WRGB, WRGC]", "controller.modes.other.1: unknown command 'WRGC'"),
        ("energy.command_pJ.MAC16=-1", "energy.command_pJ.MAC16: should be greater than or equal to 0, not -1"),
        ("dram.channels=65", "dram.channels: 65, but a stream addresses at most 64"),
        ("unit.banks_per_unit=3", "unit.banks_per_unit: 3 do not divide 16 banks"),
        ("unit.banks_per_unit=17", "unit.banks_per_unit: 17 do not divide 16 banks"),
        ("unit.banks_per_unit=0", "unit.banks_per_unit: should be greater than or equal to 1, not 0"),
        ("unit.element_B=3", "unit.element_B: 3 B do not divide an access of 32 B"),
        ("unit.arithmetic=fp8", "unit.arithmetic: should be 'bf16', 'fp16' or 'int8', not 'fp8'"),
        ("unit.lane=3", "(did you mean 'lanes'?)"),
        ("controller.order=windows", "should be 'in_order' or 'window', not 'windows'"),
        ("controller.modes.other=[]", "controller.modes.other: "),
        ("dram.timing.nRCDD=3", "dram.timing.nRCDD"),
    ],
)  # fmt: skip
def test_complaints(override: str, message: str) -> None:
    assert message in complaint(override)


def test_most_channels() -> None:
    assert load_device("gddr6-aim", ["dram.channels=64"])[0].dram.channels == 64
    assert load_device("gddr6-aim", ["unit.banks_per_unit=16"])[0].units == 1


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = complaint("dram.channels=65", "unit.banks_per_unit=3", "controller.blocking=[X]")
    assert len(said.splitlines()) == 3


def test_a_device_changes_the_memory_of_the_one_it_extends(tmp_path: Path) -> None:
    own, document = load_device(file(tmp_path, "dram:\n  timing: {nRP: 31}\n  refresh: {policy: all_bank}\n"))
    base, _ = load_device("gddr6-aim")
    assert (own.dram.timing["nRP"], own.dram.refresh.policy) == (31, "all_bank")
    assert own.dram.timing == {**base.dram.timing, "nRP": 31}
    assert (own.unit, own.controller, own.energy) == (base.unit, base.controller, base.energy)
    again, _ = load_device(file(tmp_path, "dram: {timing: {nRP: 31}}\n"), ["dram.timing.nRP=32"])
    assert (again.dram.timing["nRP"], again.dram.refresh.policy) == (32, "none")
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(document.text())
    assert load_device(str(resolved))[0] == own


def test_a_device_replaces_the_memory_by_another(tmp_path: Path) -> None:
    """Then nothing of the first memory is left, and the commands that the controller names are gone."""
    path = file(tmp_path, "dram: {extends: hbm2_newton}\n")
    with pytest.raises(InputError) as error:
        load_device(path)
    assert "unknown command 'RDMAC16'" in str(error.value)


def test_null_removes_what_is_inherited(tmp_path: Path) -> None:
    own, _ = load_device(file(tmp_path, "energy: {command_pJ: {MAC16: null}}\ncontroller: {modes: null}\n"))
    assert own.energy.command_pJ.get("MAC16") is None
    assert own.controller.modes is None


def test_findings_name_the_place_in_the_file(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "unit:\n  banks_per_unit: 3\ncontroller:\n  blocking: [RDMAC16, RDMAC17]\nenergy: {command_pJ: {MAC17: 3}}\n",
    )
    with pytest.raises(InputError) as error:
        load_device(path)
    said = str(error.value).splitlines()
    assert len(said) == 3
    for line, message in zip(
        said,
        (
            "6:19: unit.banks_per_unit: 3 do not divide 16 banks",
            "8:23: controller.blocking.1: unknown command 'RDMAC17' (did you mean 'RDMAC16'?)",
            "9:30: energy.command_pJ.MAC17: unknown command 'MAC17' (did you mean 'MAC16'?)",
        ),
        strict=True,
    ):
        assert line == f"{path}:{message}"
