"""Import of config.json: what is taken over, and that nothing which matters is passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from pimloom.arch.document import InputError
from pimloom.workloads.model import Model, Rope, RopeScaling, load_model
from tests import opt

DATA = Path(__file__).parent.parent / "data" / "functional"
TINY = DATA / "gpt2-tiny"
CONFIG = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
LLAMA = json.loads((DATA / "llama-gqa" / "config.json").read_text(encoding="utf-8"))
# As files before transformers 5 have it: theta on its own, and what scales it beside.
OLD_LLAMA = {key: value for key, value in LLAMA.items() if key != "rope_parameters"}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def write(
    folder: Path,
    changes: dict[str, Any],
    drop: tuple[str, ...] = (),
    indent: int | str = 2,
    base: dict[str, Any] = CONFIG,
) -> Path:
    config = {key: value for key, value in (base | changes).items() if key not in drop}
    path = folder / "config.json"
    path.write_text(json.dumps(config, indent=indent), encoding="utf-8")
    return path


def failure(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_model(str(path))
    return str(error.value)


def test_the_reference_model_by_folder_and_by_file() -> None:
    model, document = load_model(str(TINY))
    assert model == load_model(str(TINY / "config.json"))[0]
    sizes = ["layers", "d_model", "heads", "d_head", "d_ff", "vocab", "positions"]
    assert [getattr(model, key) for key in sizes] == [2, 64, 4, 16, 256, 257, 256]
    assert (model.name, model.activation, model.norm_epsilon) == ("gpt2-tiny", "gelu_tanh", 1e-5)
    assert (model.tied_head, model.scale_attention, model.scale_by_layer) == (True, True, False)
    assert document.sources()["d_ff"].endswith("4 x n_embd, as n_inner is null")


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"n_inner": 100}, "d_ff", 100),
        ({"activation_function": "gelu_pytorch_tanh"}, "activation", "gelu_tanh"),
        ({"activation_function": "relu"}, "activation", "relu"),
        ({"tie_word_embeddings": False}, "tied_head", False),
        ({"scale_attn_weights": False}, "scale_attention", False),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_by_layer", True),
        ({"layer_norm_epsilon": 1}, "norm_epsilon", 1.0),
        ({"n_ctx": 256, "hidden_size": 64, "torch_dtype": "float16"}, "positions", 256),
    ],
)
def test_keys_that_matter_are_translated(
    changes: dict[str, Any], field: str, value: object, tmp_path: Path
) -> None:
    assert getattr(load_model(str(write(tmp_path, changes)))[0], field) == value


def test_absent_keys_take_the_defaults_of_transformers(tmp_path: Path) -> None:
    drop = ("n_inner", "activation_function", "layer_norm_epsilon", "tie_word_embeddings",
            "scale_attn_by_inverse_layer_idx", "scale_attn_weights", "add_cross_attention")  # fmt: skip
    model, document = load_model(str(write(tmp_path, {}, drop)))
    assert model == load_model(str(TINY))[0].model_copy(
        update={"name": tmp_path.name, "sources": model.sources}
    )
    assert "default of transformers" in document.sources()["tied_head"]


def test_second_names_of_sizes(tmp_path: Path) -> None:
    names = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    path = write(tmp_path, names, ("n_embd", "n_layer", "n_head", "n_positions"))
    assert load_model(str(path))[0].d_head == 16
    assert "n_embd is 64" in failure(write(tmp_path, {"hidden_size": 32}))


def test_tabs_and_one_line_are_json_too(tmp_path: Path) -> None:
    assert load_model(str(write(tmp_path, {}, indent="\t")))[0].layers == 2


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"n_laeyr": 3}, "n_laeyr", "did you mean 'n_layer'?"),
        ({"quantization_config": {"bits": 4}}, "quantization_config", "only null is supported"),
        ({"add_cross_attention": True}, "add_cross_attention", "only false is supported, not true"),
        ({"activation_function": "gelu"}, "activation_function", "gelu_new, gelu_pytorch_tanh, relu"),
        ({"activation_function": ["gelu"]}, "activation_function", "not supported"),
        ({"n_embd": 63}, "n_head", "n_embd 63 is no multiple of n_head 4"),
        ({"n_layer": 0}, "n_layer", "at least 1, not 0"),
        ({"n_layer": True}, "n_layer", "at least 1, not true"),
        ({"n_layer": 10**15}, "layers", "1099511627776"),
        ({"n_inner": "big"}, "n_inner", "at least 1"),
        ({"n_ctx": 128}, "n_ctx", "128, but n_positions is 256"),
        ({"layer_norm_epsilon": "tiny"}, "norm_epsilon", "should be a valid number"),
        ({"scale_attn_weights": 1}, "scale_attn_weights", "should be true or false, not 1"),
    ],
)
def test_a_refusal_names_key_line_and_column(
    changes: dict[str, Any], key: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, changes)
    text = failure(path)
    stated = "n_head" if key == "n_head" else next(iter(changes))
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(number for number, content in enumerate(lines, 1) if f'"{stated}"' in content)
    assert text.startswith(f"{path}:{line}:")
    assert f"{key}: " in text
    assert message in text


@pytest.mark.parametrize("model_type", ["falcon", None, ["gpt2"]])
def test_another_family_is_refused_with_that_alone(model_type: object, tmp_path: Path) -> None:
    text = failure(write(tmp_path, {"model_type": model_type, "rope_theta": 1e4}))
    assert "supported: gpt2, opt, llama, mistral" in text
    assert "rope_theta" not in text


def test_a_missing_size_and_a_missing_family(tmp_path: Path) -> None:
    assert "n_layer: missing" in failure(write(tmp_path, {}, ("n_layer",)))
    assert "model_type: missing; supported: gpt2" in failure(write(tmp_path, {}, ("model_type",)))


def test_all_findings_at_once(tmp_path: Path) -> None:
    text = failure(write(tmp_path, {"n_layer": 0, "n_heads": 4, "activation_function": "silu"}))
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"n_layer": 1, "n_layer": 2}', "\x00"])
def test_what_is_no_json_object(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    assert str(path) in failure(path)


def test_a_folder_without_config(tmp_path: Path) -> None:
    assert "holds no config.json" in failure(tmp_path)
    assert "no such file" in failure(tmp_path / "nothing" / "config.json")


def test_a_shipped_name_goes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpt2-small", "mine"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, {})
    monkeypatch.chdir(tmp_path)
    assert load_model("gpt2-small")[0].layers == 12
    assert load_model("./gpt2-small")[0].layers == 2
    assert load_model("mine")[0].layers == 2


def test_a_description_in_json_is_a_description(tmp_path: Path) -> None:
    model: Model = load_model("gpt2-small")[0]
    path = tmp_path / "own.json"
    path.write_text(model.model_dump_json(), encoding="utf-8")
    assert load_model(str(path))[0] == model


def test_the_reference_llama() -> None:
    model, document = load_model(str(DATA / "llama-gqa"))
    sizes = ["layers", "d_model", "heads", "kv_heads", "d_head", "d_ff", "vocab", "positions"]
    assert [getattr(model, key) for key in sizes] == [2, 96, 6, 2, 16, 256, 257, 256]
    assert (model.family, model.activation, model.norm_epsilon) == ("llama", "silu", 1e-6)
    assert (model.tied_head, model.bias, model.rope) == (False, False, Rope(theta=1e4))
    assert document.sources()["rope.theta"].startswith(str(DATA / "llama-gqa"))


SCALED = Rope(
    theta=5e5,
    scaling=RopeScaling(factor=8, low_frequency_factor=1, high_frequency_factor=4, original_positions=8192),
)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({}, "rope", Rope(theta=1e4)),
        ({"rope_theta": 5e5}, "rope", Rope(theta=5e5)),
        ({"rope_theta": 500000, "rope_scaling": None}, "rope", Rope(theta=5e5)),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, "rope", SCALED),
        ({"rope_parameters": LLAMA3 | {"rope_theta": 5e5}}, "rope", SCALED),
        ({"rope_theta": 5e5, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}}, "rope", SCALED),
        ({"rope_scaling": {"type": "default"}}, "rope", Rope(theta=1e4)),
        ({"head_dim": None}, "d_head", 16),
        ({"head_dim": 32}, "d_head", 32),
        ({"num_key_value_heads": None}, "kv_heads", 6),
        ({"num_key_value_heads": 1}, "kv_heads", 1),
        ({"tie_word_embeddings": True, "pretraining_tp": 2}, "tied_head", True),
        ({"max_sequence_length": 256}, "positions", 256),
        ({"rms_norm_eps": 1e-5}, "norm_epsilon", 1e-5),
    ],
)
def test_keys_of_llama(changes: dict[str, Any], field: str, value: object, tmp_path: Path) -> None:
    assert getattr(load_model(str(write(tmp_path, changes, base=OLD_LLAMA)))[0], field) == value


def test_defaults_of_llama(tmp_path: Path) -> None:
    drop = ("attention_bias", "head_dim", "hidden_act", "mlp_bias", "num_key_value_heads", "rms_norm_eps",
            "tie_word_embeddings", "max_position_embeddings")  # fmt: skip
    path = write(tmp_path, {"max_sequence_length": 256}, drop, base=OLD_LLAMA)
    model, document = load_model(str(path))
    same = {"name": tmp_path.name, "sources": model.sources, "kv_heads": 6}
    assert model == load_model(str(DATA / "llama-gqa"))[0].model_copy(update=same)
    assert "default of transformers' LlamaConfig" in document.sources()["rope.theta"]


@pytest.mark.parametrize(
    ("changes", "stated", "message"),
    [
        ({"attention_bias": True}, "attention_bias", "only false is supported, not true"),
        ({"mlp_bias": True}, "mlp_bias", "only false is supported, not true"),
        ({"hidden_act": "gelu"}, "hidden_act", "'gelu' is not supported; supported: silu"),
        ({"num_key_value_heads": 4}, "num_key_value_heads", "heads 6 is no multiple of kv_heads 4"),
        ({"num_key_value_heads": 0}, "num_key_value_heads", "at least 1, not 0"),
        ({"head_dim": 15}, "head_dim", "d_head: should be even"),
        ({"hidden_size": 97, "head_dim": None}, "num_attention_heads", "hidden_size 97 is no multiple of"),
        ({"rope_theta": "big"}, "rope_theta", "rope.theta: should be a valid number"),
        ({"rope_scaling": 8}, "rope_scaling", "should be a mapping, not 8"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type",
            "rope_scaling.rope_type: 'yarn' is not supported; supported: default, llama3",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 4.0}}, "type",
            "rope_scaling.rope_type: 'linear' is not supported",
        ),
        (
            {"rope_scaling": LLAMA3 | {"beta_fast": 32}}, "beta_fast",
            "rope_scaling.beta_fast: unknown key; it might change what is computed",
        ),
        ({"rope_scaling": {"rope_type": "default", "factor": 2}}, "factor", "rope_scaling.factor: unknown key"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rope_scaling",
            "rope_scaling.low_freq_factor: missing",
        ),
        (
            {"rope_scaling": LLAMA3, "rope_parameters": {"rope_theta": 1.0}}, "rope_scaling",
            "given beside rope_parameters, which stands for the same",
        ),
        (
            {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}}, "rope_parameters",
            "rope_parameters.rope_theta: 10000.0, but rope_theta is 500000.0",
        ),
        ({"sliding_window": 4096}, "sliding_window", "unknown key"),
        ({"num_key_value_head": 2}, "num_key_value_head", "did you mean 'num_key_value_heads'?"),
    ],
)  # fmt: skip
def test_what_llama_has_not(changes: dict[str, Any], stated: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, changes, base=OLD_LLAMA)
    text = failure(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(number for number, content in enumerate(lines, 1) if f'"{stated}":' in content)
    found = next(found for found in text.splitlines() if message in found)
    if stated != "rope_parameters":
        assert found.startswith(f"{path}:{line}:")


def test_mistral_is_llama_without_a_window(tmp_path: Path) -> None:
    mistral = OLD_LLAMA | {"model_type": "mistral", "num_attention_heads": 16, "hidden_size": 256}
    drop = ("attention_bias", "mlp_bias", "pretraining_tp")
    path = write(tmp_path, {"sliding_window": None}, drop, base=mistral)
    assert (load_model(str(path))[0].family, load_model(str(path))[0].kv_heads) == ("llama", 2)
    path = write(tmp_path, {"sliding_window": None}, (*drop, "num_key_value_heads"), base=mistral)
    assert load_model(str(path))[0].kv_heads == 8
    text = failure(write(tmp_path, {"sliding_window": 4096}, drop, base=mistral))
    assert "sliding_window: only null is supported, not 4096" in text
    text = failure(write(tmp_path, {}, drop, base=mistral))
    assert "sliding_window: missing, which means 4096; only null is supported" in text


def test_opt(tmp_path: Path) -> None:
    model, document = load_model(str(write(tmp_path, {}, base=opt.CONFIG)))
    sizes = ["layers", "d_model", "heads", "kv_heads", "d_head", "d_ff", "vocab", "positions"]
    assert [getattr(model, key) for key in sizes] == [2, 24, 3, 3, 8, 40, 37, 20]
    assert (model.family, model.activation, model.norm_epsilon) == ("opt", "relu", 1e-5)
    assert (model.tied_head, model.bias, model.rope) == (True, True, None)
    assert document.sources()["norm_epsilon"].endswith("that of torch's LayerNorm")
    drop = ("activation_function", "do_layer_norm_before", "word_embed_proj_dim", "_remove_final_layer_norm")
    assert load_model(str(write(tmp_path, {"enable_bias": True}, drop, base=opt.CONFIG)))[0] == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_layer_norm_before": False}, "do_layer_norm_before: only true is supported, not false"),
        ({"word_embed_proj_dim": 12}, "word_embed_proj_dim: 12, but hidden_size is 24"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm: only false is supported, not true"),
        ({"enable_bias": False}, "enable_bias: only true is supported, not false"),
        ({"activation_function": "gelu"}, "activation_function: 'gelu' is not supported; supported: relu"),
        ({"ffn_dim": None}, "ffn_dim: should be an integer of at least 1, not null"),
        ({"hidden_size": 25}, "num_attention_heads: hidden_size 25 is no multiple of num_attention_heads 3"),
        ({"n_embd": 24}, "n_embd: unknown key"),
    ],
)
def test_opts_that_are_not_supported(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in failure(write(tmp_path, changes, base=opt.CONFIG))
