"""Sizes of the shipped models, and what a wrong one is answered with."""

import math
from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.document import InputError, shipped
from pimloom.workloads.model import Model, load_model

DATA = Path(__file__).parent.parent / "data" / "functional"
MEBI = 2**20

# Totals as published: the released checkpoints of GPT-2 and Llama, exactly; Brown et al. 2020, table 2.1, and the names
# of OPT, rounded. Decoder matrices in units of 2^20: 12 · layers · d_model², and in Llama
# layers · (2 · d_model · (d_model + kv_heads · d_head) + 3 · d_model · d_ff).
SIZES = [
    ("gpt2-small", 124_439_808, 81),
    ("gpt2-medium", 354_823_168, 288),
    ("gpt2-large", 774_030_080, 675),
    ("gpt2-xl", 1_557_611_200, 1406.25),
    ("gpt3-small", 125e6, 81),
    ("gpt3-medium", 350e6, 288),
    ("gpt3-large", 760e6, 648),
    ("gpt3-xl", 1.3e9, 1152),
    ("gpt3-13b", 13.0e9, 12000),
    ("gpt3-175b", 175e9, 165888),
    ("opt-125m", 125e6, 81),
    ("opt-1.3b", 1.3e9, 1152),
    ("opt-6.7b", 6.7e9, 6144),
    ("opt-13b", 13e9, 12000),
    ("opt-30b", 30e9, 28224),
    ("opt-66b", 66e9, 62208),
    ("llama-65b", 65_285_660_672, 80 * (256 + 516)),
    ("llama2-7b", 6_738_415_616, 32 * (64 + 129)),
    ("llama2-13b", 13_015_864_320, 40 * (100 + 202.5)),
    ("llama2-70b", 68_976_648_192, 80 * (144 + 672)),
    ("llama3-8b", 8_030_261_248, 32 * (40 + 168)),
    ("llama3-70b", 70_553_706_496, 80 * (144 + 672)),
]


@pytest.mark.parametrize(("name", "published", "matrices"), SIZES)
def test_published_parameter_counts(name: str, published: float, matrices: float) -> None:
    model, _ = load_model(name)
    if name.startswith(("gpt2", "llama")):
        assert model.parameters == published
    assert model.parameters == pytest.approx(published, rel=0.02)
    assert model.decoder_parameters == matrices * MEBI


def test_all_models_are_shipped() -> None:
    assert sorted(shipped("model")) == sorted(name for name, _, _ in SIZES)


def test_misprints_of_the_gpt3_table() -> None:
    model, document = load_model("gpt3-xl")
    assert (model.heads, model.d_head) == (16, 128)
    assert "24 heads" in document.sources()["heads"]
    model, document = load_model("gpt3-13b")
    assert (model.heads, model.d_head) == (40, 128)
    assert "5140" in document.sources()["d_model"]


@pytest.mark.parametrize("name", [name for name, _, _ in SIZES])
def test_every_number_has_a_source(name: str) -> None:
    model, document = load_model(name)
    numbers = {key for key, value in model.model_dump().items() if isinstance(value, int | float)} - {
        "version"
    }
    left_out = numbers - document.sources().keys()
    assert left_out <= {"kv_heads", "scale_attention", "scale_by_layer"}
    assert not left_out & document.root.plain().keys()
    assert (model.rope is None) == ("rope.theta" not in document.sources())


@pytest.mark.parametrize(
    "name", ["gpt3-xl", "opt-13b", "llama3-8b", str(DATA / "gpt2-uneven"), str(DATA / "llama-gqa")]
)
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


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("gpt2-small", "activation=silu", "activation: should be 'gelu_tanh' or 'relu' in the gpt2 family, not 'silu'"),
        ("gpt2-small", "bias=false", "bias: should be true in the gpt2 family, not false"),
        ("gpt2-small", "kv_heads=4", "kv_heads: should be heads 12 in the gpt2 family, not 4"),
        ("gpt2-small", "rope={theta: 1e4}", "rope: positions are learned in the gpt2 family, not rotary"),
        ("opt-125m", "activation=gelu_tanh", "activation: should be 'relu' in the opt family"),
        ("opt-125m", "scale_by_layer=true", "scale_by_layer: should be false in the opt family, not true"),
        ("opt-125m", "d_head=65", "d_model: should be heads 12 x d_head 65 = 780 in the opt family, not 768"),
        ("llama3-8b", "activation=relu", "activation: should be 'silu' in the llama family, not 'relu'"),
        ("llama3-8b", "bias=true", "bias: should be false in the llama family, not true"),
        ("llama3-8b", "rope=null", "rope: missing; positions are rotary in the llama family"),
        ("llama3-8b", "kv_heads=7", "kv_heads: heads 32 is no multiple of kv_heads 7"),
        ("llama3-8b", "kv_heads=64", "kv_heads: heads 32 is no multiple of kv_heads 64"),
        ("llama3-8b", "d_head=65", "d_head: should be even, as rotary positions turn pairs, not 65"),
        ("llama3-8b", "rope.theta=0", "rope.theta: should be greater than 0"),
        ("llama3-8b", "rope.teta=1", "did you mean 'theta'?"),
        ("llama3-8b", "family=falcon", "family: should be 'gpt2', 'opt' or 'llama', not 'falcon'"),
    ],
)  # fmt: skip
def test_what_a_family_does_not_have(name: str, override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_model(name, [override])
    assert message in str(error.value)


def test_rope_scaling_is_checked() -> None:
    good = "rope.scaling={factor: 8, low_frequency_factor: 1, high_frequency_factor: 4, original_positions: 8192}"
    scaling = load_model("llama3-8b", [good])[0].rope.scaling
    assert (scaling.factor, scaling.original_positions) == (8, 8192)
    with pytest.raises(
        InputError, match="high_frequency_factor: should be above low_frequency_factor 4, not 4"
    ):
        load_model("llama3-8b", [good, "rope.scaling.low_frequency_factor=4"])
    with pytest.raises(InputError, match="rope.scaling.factor: missing"):
        load_model("llama3-8b", [good.replace("factor: 8, ", "", 1)])


def test_kv_heads_are_the_heads_where_nothing_is_said() -> None:
    assert load_model("gpt2-small", ["heads=6", "d_head=128"])[0].kv_heads == 6
    assert load_model("llama2-7b", ["kv_heads=null", "heads=16"])[0].kv_heads == 16
    with pytest.raises(InputError) as error:
        load_model("gpt2-small", ["heads=0"])
    assert "kv_heads" not in str(error.value)


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

    for name in ("gpt2-tiny", "gpt2-uneven", "llama-gqa"):
        stored = load_file(DATA / name / "model.safetensors")
        assert load_model(str(DATA / name))[0].parameters == sum(np.size(array) for array in stored.values())
