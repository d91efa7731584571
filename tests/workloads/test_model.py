"""Sizes of the shipped models, and what a wrong one is answered with."""

import math
from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.document import InputError, shipped
from pimloom.workloads.model import Model, load_model

DATA = Path(__file__).parent.parent / "data" / "functional"
MEBI = 2**20

# Totals as published: the released GPT-2 checkpoints, exactly; Brown et al. 2020, table 2.1, rounded. Decoder
# matrices in units of 2^20: 12 · layers · d_model².
SIZES = [
    ("gpt2-small", 124_439_808, 81),
    ("gpt2-medium", 354_823_168, 288),
    ("gpt2-large", 774_030_080, 675),
    ("gpt2-xl", 1_557_611_200, 1406.25),
    ("gpt3-small", 125e6, 81),
    ("gpt3-medium", 350e6, 288),
    ("gpt3-large", 760e6, 648),
    ("gpt3-xl", 1.3e9, 1152),
]


@pytest.mark.parametrize(("name", "published", "matrices"), SIZES)
def test_published_parameter_counts(name: str, published: float, matrices: float) -> None:
    model, _ = load_model(name)
    if name.startswith("gpt2"):
        assert model.parameters == published
    assert model.parameters == pytest.approx(published, rel=0.02)
    assert model.decoder_parameters == matrices * MEBI


def test_all_models_are_shipped() -> None:
    assert sorted(shipped("model")) == sorted(name for name, _, _ in SIZES)


def test_gpt3_xl_has_16_heads_of_128() -> None:
    model, document = load_model("gpt3-xl")
    assert (model.heads, model.d_head) == (16, 128)
    assert "24 heads" in document.sources()["heads"]


@pytest.mark.parametrize("name", [name for name, _, _ in SIZES])
def test_every_number_has_a_source(name: str) -> None:
    model, document = load_model(name)
    numbers = {key for key, value in model.model_dump().items() if isinstance(value, int | float)} - {
        "version"
    }
    assert numbers <= document.sources().keys()


@pytest.mark.parametrize("name", ["gpt3-xl", str(DATA / "gpt2-uneven")])
def test_the_resolved_text_loads_again_to_the_same(name: str, tmp_path: Path) -> None:
    model, document = load_model(name, ["layers=3"])
    path = tmp_path / "model.yaml"
    path.write_text(document.text(), encoding="utf-8")
    again, resolved = load_model(str(path))
    assert again == model
    assert resolved.sources() == document.sources()


def test_overrides_work_on_a_shipped_and_an_imported_model() -> None:
    assert load_model("gpt2-small", ["layers=1"])[0].layers == 1
    assert load_model(str(DATA / "gpt2-tiny"), ["positions=64"])[0].positions == 64


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("heads=10", "d_model: should be heads 10 x d_head 64 = 640 in the gpt2 family, not 768"),
        ("layers=0", "layers: "),
        ("d_ff=-1", "d_ff: "),
        ("layer=1", "did you mean 'layers'?"),
        ("activation=swish", "activation: "),
        ("norm_epsilon=0", "norm_epsilon: "),
        ("tied_head=1", "tied_head: "),
        ("layers=1000000000", "layers: should be less than or equal to 10000"),
        ("d_ff=1099511627776", "d_ff: should be less than or equal to 1048576"),
        ("vocab=1099511627776", "vocab: should be less than or equal to 16777216"),
        ("positions=1099511627776", "positions: should be less than or equal to 16777216"),
    ],
)
def test_a_wrong_value_is_named(override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_model("gpt2-small", [override])
    assert message in str(error.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'gpt2-small'"):
        load_model("gpt2-smal")


def test_sizes_are_computed_from_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("gpt2-small", ["layers=10000"])[0]
    expected = sum(map(math.prod, model.tensor_shapes().values()))

    def never(self: Model) -> None:
        raise AssertionError

    monkeypatch.setattr(Model, "tensor_shapes", never)
    assert model.parameters == expected
    assert model.decoder_parameters == 10000 * 12 * 768**2


def test_parameters_are_the_tensors_of_the_reference() -> None:
    from safetensors.numpy import load_file

    for name in ("gpt2-tiny", "gpt2-uneven"):
        stored = load_file(DATA / name / "model.safetensors")
        assert load_model(str(DATA / name))[0].parameters == sum(np.size(array) for array in stored.values())
