"""Models through the programs of devices, beyond the defaults of the shipped systems."""

from pathlib import Path

import numpy as np
import pytest

from pimloom import device_proof
from pimloom.arch.device import load_device
from pimloom.bench import run_kernel
from pimloom.traces.stream import Attention, Elementwise, Gemv, Work

MODELS = Path(__file__).parent / "data"


def model(name: str) -> str:
    return str(next(MODELS.rglob(f"{name}/config.json")).parent)


def test_matrices_and_caches_of_one_device_do_not_overlap() -> None:
    """AttAcc's attention is one kernel, whose rows the next matrix must not take."""
    found = device_proof.validate_system(
        model("llama-gqa"), "attacc-bank", overrides=["on_device=[linear,attention]"]
    )
    assert found.passed, found.first_mismatch
    assert found.tokens_equal == found.tokens_compared


def test_wrong_numbers_show(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = device_proof.execute

    def wrong(*arguments: object) -> np.ndarray:
        result = honest(*arguments)  # type: ignore[arg-type]
        result[0] += np.float32(0.1)
        return result

    monkeypatch.setattr(device_proof, "execute", wrong)
    found = device_proof.validate_system(model("gpt2-tiny"), "newton")
    assert not found.passed
    assert found.first_mismatch.startswith("layer0.qkv at position 0: off by")


@pytest.mark.parametrize(
    "device, work",
    [
        ("newton", Gemv(17, 31)),
        ("gddr6-aim", Elementwise("mul", 37)),
        ("hbm2-pim", Elementwise("relu", 5)),
        ("newton", Attention("score", 4, 2, 16, 13)),
        ("newton", Attention("context", 4, 2, 16, 13)),
        ("attacc-bank", Attention("attention", 4, 2, 16, 13)),
    ],
    ids=str,
)
def test_check_of_a_kernel(device: str, work: Work) -> None:
    run = run_kernel(load_device(device)[0], work, 1 if device != "attacc-bank" else None)
    assert device_proof.check(run) < device_proof.TOLERANCE
