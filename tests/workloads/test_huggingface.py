"""Import of config.json: what is taken over, and that nothing which matters is passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from pimloom.arch.document import InputError
from pimloom.workloads.model import Model, load_model

TINY = Path(__file__).parent.parent / "data" / "functional" / "gpt2-tiny"
CONFIG = json.loads((TINY / "config.json").read_text(encoding="utf-8"))


def write(folder: Path, changes: dict[str, Any], drop: tuple[str, ...] = (), indent: int | str = 2) -> Path:
    config = {key: value for key, value in (CONFIG | changes).items() if key not in drop}
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


@pytest.mark.parametrize("model_type", ["llama", None, ["gpt2"]])
def test_another_family_is_refused_with_that_alone(model_type: object, tmp_path: Path) -> None:
    text = failure(write(tmp_path, {"model_type": model_type, "rope_theta": 1e4}))
    assert "supported: gpt2" in text
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
