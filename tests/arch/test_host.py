"""The processor beside PIM devices: its roofline by hand arithmetic, and what is refused."""

import pytest

from pimloom.arch.document import load, shipped
from pimloom.arch.host import Host
from pimloom.arch.tree import InputError


def host(*overrides: str, name: str = "a100") -> Host:
    return load(Host, "host", name, overrides)[0]


@pytest.mark.parametrize("name", shipped("host"))
def test_shipped_hosts(name: str) -> None:
    described = host(name=name)
    assert described.name == name
    assert described.time_ns(0, 0, 1) == described.operator_ns


def test_roofline() -> None:
    own = host("peak_FLOPps=2e12", "compute_efficiency=0.5", "operator_ns=7")
    # 1e12 a second: 1e6 operations take 1000 ns. 1e9 B/s: 1000 B take 1000 ns.
    assert own.time_ns(1e6, 0, 1e9) == pytest.approx(1007)
    assert own.time_ns(1e6, 999, 1e9) == pytest.approx(1007)
    assert own.time_ns(1e6, 1001, 1e9) == pytest.approx(1008)
    assert own.time_ns(0, 1001, 1e9) == pytest.approx(1008)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("peak_FLOPps=0", "peak_FLOPps: should be greater than 0, not 0"),
        ("compute_efficiency=0", "compute_efficiency: should be greater than 0, not 0"),
        ("memory_efficiency=1.01", "memory_efficiency: should be less than or equal to 1, not 1.01"),
        ("operator_ns=-1", "operator_ns: should be greater than or equal to 0, not -1"),
        ("memory_Bps=0", "memory_Bps: should be greater than 0, not 0"),
        ("peak_FLOPps=null", "peak_FLOPps: "),
        ("peak_FLOPs=1", "(did you mean 'peak_FLOPps'?)"),
    ],
)
def test_complaints(override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        host(override)
    assert message in str(error.value)


def test_what_is_not_known_may_be_null() -> None:
    own = host("active_W=null", "idle_W=null", "memory_Bps=null")
    assert (own.active_W, own.idle_W, own.memory_Bps) == (None, None, None)
