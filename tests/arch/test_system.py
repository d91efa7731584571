"""Systems: how stages, devices and channels add up, and how a file changes the device inside."""

from pathlib import Path

import pytest

from pimloom.arch.document import shipped
from pimloom.arch.system import System, load_system
from pimloom.arch.tree import InputError


def system(*overrides: str) -> System:
    return load_system("gddr6-aim", overrides)[0]


@pytest.mark.parametrize("name", shipped("system"))
def test_shipped_systems(name: str) -> None:
    described, document = load_system(name)
    assert described.name == name
    assert described.channels * described.stages_per_device <= described.device.dram.channels
    # Whatever its own simulator does, a memory is refreshed.
    assert described.device.dram.refresh.policy != "none"
    assert document.sources()["devices"]


@pytest.mark.parametrize(
    ("overrides", "per_device"),
    [
        (["devices=1"], 1),
        (["devices=3", "partition.stages=3"], 1),
        (["devices=3", "partition.stages=3", "partition.tensor_parallel=1"], 1),
        (["devices=6", "partition.stages=3", "partition.tensor_parallel=2"], 1),
        (["devices=7", "partition.stages=3", "partition.tensor_parallel=2"], 1),
        (["devices=1", "partition.stages=4", "partition.channels=8"], 4),
        (["devices=2", "partition.stages=5", "partition.channels=8"], 4),
        (["devices=1", "partition.stages=2", "partition.channels=11"], 2),
        (["devices=1", "partition.channels=32", "partition.tensor_parallel=1"], 1),
    ],
)
def test_partitions(overrides: list[str], per_device: int) -> None:
    assert system(*overrides).stages_per_device == per_device


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["partition.channels=33"], "partition.channels: 33, but a device has 32"),
        (["partition.channels=0"], "partition.channels: should be greater than or equal to 1, not 0"),
        (["partition.stages=2"], "devices: 1, but 2 stages of 1 x 32 channels take 2"),
        (["partition.stages=5", "partition.channels=8"], "devices: 1, but 5 stages of 1 x 8 channels take 2"),
        (
            ["partition.stages=3", "partition.channels=11"],
            "devices: 1, but 3 stages of 1 x 11 channels take 2",
        ),
        (["devices=5", "partition.stages=3", "partition.tensor_parallel=2"], "take 6"),
        (
            ["devices=2", "partition.tensor_parallel=2", "partition.channels=16"],
            "partition.channels: stages of several devices use whole devices",
        ),
        (["on_device=[linaer]"], "on_device.0"),
        (["link.bandwidth_Bps=0"], "link.bandwidth_Bps: should be greater than 0, not 0"),
        (
            ["host.compute_efficiency=1.5"],
            "host.compute_efficiency: should be less than or equal to 1, not 1.5",
        ),
        (["device.dram.channels=65"], "device.dram.channels: 65, but a stream addresses at most 64"),
        (["device.controller.blocking=[RDMAC17]"], "device.controller.blocking.0: unknown command 'RDMAC17'"),
        (["device.dram.timing.nRPP=3"], "device.dram.timing.nRPP"),
        (["partition.stage=3"], "(did you mean 'stages'?)"),
    ],
)
def test_complaints(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        system(*overrides)
    assert message in str(error.value)


def test_a_system_changes_the_memory_of_its_device(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "extends: gddr6-aim\nkind: system\nversion: 1\nname: own\n"
        "device: {dram: {channels: 7, timing: {nRP: 31}}, unit: {result_registers: 3}}\n"
    )
    own, base = load_system(str(path))[0], system()
    assert (own.device.dram.channels, own.channels) == (7, 7)
    assert own.device.dram.timing == {**base.device.dram.timing, "nRP": 31}
    assert own.device.dram.refresh == base.device.dram.refresh
    assert own.device.unit == base.device.unit.model_copy(update={"result_registers": 3})
    assert own.host == base.host
    over, document = load_system(str(path), ["device.dram.timing.nRP=32", "device.dram.refresh.policy=none"])
    assert (over.device.dram.timing["nRP"], over.device.dram.refresh.policy) == (32, "none")
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(document.text())
    assert load_system(str(resolved))[0] == over


def test_a_system_takes_another_device(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("extends: gddr6-aim\nkind: system\nversion: 1\nname: own\ndevice: {extends: newton}\n")
    own, _ = load_system(str(path))
    assert (own.device.name, own.channels, own.host) == ("newton", 24, system().host)


def test_findings_name_the_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    head = "extends: gddr6-aim\nkind: system\nversion: 1\nname: own\n"
    path.write_text(f"{head}device:\n  dram: {{channels: 65}}\n")
    with pytest.raises(InputError) as error:
        load_system(str(path))
    assert str(error.value).startswith(f"{path}:6:20: device.dram.channels: 65")
