"""What a run asks for."""

import pytest
from pydantic import ValidationError

from pimloom.arch.document import InputError
from pimloom.workloads.model import load_model
from pimloom.workloads.request import Workload

GPT2 = load_model("gpt2-small")[0]


@pytest.mark.parametrize(("prompt", "generate", "passes"), [(1, 1, 1), (1, 1024, 1024), (33, 12, 44)])
def test_passes(prompt: int, generate: int, passes: int) -> None:
    assert Workload(prompt=prompt, generate=generate).passes == passes


def test_positions() -> None:
    Workload(prompt=1, generate=1024).check_fits(GPT2)
    message = r"prompt 2 \+ generate 1024 - 1 = 1025 positions, but gpt2-small has 1024"
    with pytest.raises(InputError, match=message):
        Workload(prompt=2, generate=1024).check_fits(GPT2)


@pytest.mark.parametrize("field", ["prompt", "generate", "batch"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_counts_are_at_least_one(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Workload.model_validate({"prompt": 1, "generate": 1, field: value})
