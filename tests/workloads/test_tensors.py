"""Weights: names, shapes and transposition of what is read, independence of order of what is drawn."""

from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pimloom.arch.document import InputError
from pimloom.workloads import tensors
from pimloom.workloads.model import load_model
from tests import opt

DATA = Path(__file__).parent.parent / "data" / "functional"
TINY = DATA / "gpt2-tiny"
MODEL = load_model(str(TINY))[0]
FIRST_DRAWN = [-0.01208618, -0.01062439, -0.006557849]
STORED = load_file(TINY / "model.safetensors")


def stored_in(folder: Path, **changes: NDArray[np.generic]) -> Path:
    """A folder with the reference's tensors, some replaced; `__` in a keyword stands for a dot."""
    arrays = STORED | {key.replace("__", "."): value for key, value in changes.items()}
    save_file(arrays, folder / "model.safetensors")
    return folder


def failure(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        tensors.from_safetensors(folder, MODEL)
    return str(error.value)


def test_every_tensor_has_its_shape_and_matrices_are_out_in() -> None:
    read = tensors.from_safetensors(TINY, MODEL)
    shapes = MODEL.tensor_shapes()
    assert set(read) == shapes.keys() | {"head.weight"}
    assert len(read) == len(set(read))
    for name, shape in shapes.items():
        assert read[name].shape == shape
        assert read[name].dtype == np.float32
        assert read[name].flags.c_contiguous
    np.testing.assert_array_equal(read["layer1.qkv.weight"], STORED["transformer.h.1.attn.c_attn.weight"].T)
    np.testing.assert_array_equal(read["layer1.ln2.bias"], STORED["transformer.h.1.ln_2.bias"])
    np.testing.assert_array_equal(read["head.weight"], STORED["transformer.wte.weight"])


def test_names_without_prefix_buffers_and_a_stored_tied_head(tmp_path: Path) -> None:
    bare = {name.removeprefix("transformer."): array for name, array in STORED.items()}
    mask = np.ones((1, 1, 256, 256), np.bool_)
    extra = {"h.0.attn.bias": mask, "h.1.attn.masked_bias": np.float32(-1e4).reshape(1)}
    save_file(bare | extra | {"lm_head.weight": bare["wte.weight"].copy()}, tmp_path / "model.safetensors")
    read, expected = tensors.from_safetensors(tmp_path, MODEL), tensors.from_safetensors(TINY, MODEL)
    assert all(np.array_equal(read[name], expected[name]) for name in expected)


def test_shards(tmp_path: Path) -> None:
    names = sorted(STORED)
    for part, chosen in enumerate((names[:9], names[9:]), 1):
        save_file(
            {name: STORED[name] for name in chosen}, tmp_path / f"model-0000{part}-of-00002.safetensors"
        )
    read, expected = tensors.from_safetensors(tmp_path, MODEL), tensors.from_safetensors(TINY, MODEL)
    assert all(np.array_equal(read[name], expected[name]) for name in expected)


def test_an_untied_head_is_its_own_tensor(tmp_path: Path) -> None:
    model = MODEL.model_copy(update={"tied_head": False})
    with pytest.raises(InputError, match=r"missing from the file: lm_head\.weight"):
        tensors.from_safetensors(TINY, model)
    head = np.full((257, 64), 3, np.float16)
    read = tensors.from_safetensors(stored_in(tmp_path, lm_head__weight=head), model)
    assert (read["head.weight"] == 3).all()
    assert read["head.weight"].dtype == np.float32


def test_wrong_files_are_refused_with_all_reasons(tmp_path: Path) -> None:
    assert "no such file" in failure(tmp_path)
    changes: dict[str, NDArray[np.generic]] = {
        "transformer__wpe__weight": np.zeros((255, 64), np.float32),
        "transformer__wte__weight": np.zeros((257, 64), np.int8),
        "transformer__h__7__ln_1__bias": np.zeros(64, np.float32),
    }
    text = failure(stored_in(tmp_path, **changes))
    assert "wpe.weight: shape (255, 64), but the model's sizes make it (256, 64)" in text
    assert "wte.weight: type I8" in text
    assert "not part of the model: h.7.ln_1.bias" in text
    assert "stored twice" in failure(stored_in(tmp_path, wte__weight=np.zeros((257, 64), np.float32)))
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    assert "not a readable safetensors file" in failure(tmp_path)


def test_a_model_of_another_size_lists_only_a_few_names() -> None:
    model = MODEL.model_copy(update={"layers": 9})
    with pytest.raises(InputError, match="and 79 more"):
        tensors.from_safetensors(TINY, model)


def test_random_weights_do_not_depend_on_order() -> None:
    forwards, backwards = tensors.random(MODEL, 1), tensors.random(MODEL, 1)
    names = list(forwards)
    drawn = {name: forwards[name] for name in names}
    assert all(np.array_equal(backwards[name], drawn[name]) for name in reversed(names))
    assert not np.array_equal(tensors.random(MODEL, 2)["wte"], drawn["wte"])
    assert not np.array_equal(drawn["layer0.qkv.bias"], drawn["layer1.qkv.bias"])
    assert np.array_equal(drawn["head.weight"], drawn["wte"])


def test_random_weights_are_the_same_on_every_machine() -> None:
    np.testing.assert_allclose(tensors.random(MODEL, 0)["layer0.proj.weight"][0, :3], FIRST_DRAWN, rtol=1e-6)


def test_random_scales() -> None:
    drawn = tensors.random(MODEL, 0)
    assert drawn["layer0.ffn1.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert drawn["layer0.ffn2.weight"].std() == pytest.approx(0.01, rel=0.05)
    assert drawn["layer0.ln1.weight"].mean() == pytest.approx(1, abs=0.05)
    assert {drawn[name].dtype for name in drawn} == {np.dtype(np.float32)}


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="layer9"):
        tensors.random(MODEL, 0)["layer9.qkv.weight"]
    assert "layer9.qkv.weight" not in tensors.random(MODEL, 0)


def test_opt_by_name_and_shape(tmp_path: Path) -> None:
    """Projections one below the other, and a position table without the two rows that no token takes."""
    stored = opt.weights()
    model = load_model(str(opt.folder(tmp_path, stored)))[0]
    read = tensors.from_safetensors(tmp_path, model)
    assert set(read) == model.tensor_shapes().keys() | {"head.weight"}
    assert {name: array.shape for name, array in read.items()} == model.tensor_shapes() | {
        "head.weight": (37, 24)
    }
    whole = "model.decoder.layers.1."
    for kind in ("weight", "bias"):
        parts = [stored[f"{whole}self_attn.{part}_proj.{kind}"] for part in "qkv"]
        np.testing.assert_array_equal(read[f"layer1.qkv.{kind}"], np.concatenate(parts))
        for ours, theirs in {
            "ln1": "self_attn_layer_norm", "proj": "self_attn.out_proj", "ln2": "final_layer_norm", "ffn1": "fc1",
            "ffn2": "fc2",
        }.items():  # fmt: skip
            np.testing.assert_array_equal(read[f"layer1.{ours}.{kind}"], stored[f"{whole}{theirs}.{kind}"])
        np.testing.assert_array_equal(read[f"ln_f.{kind}"], stored[f"model.decoder.final_layer_norm.{kind}"])
    np.testing.assert_array_equal(read["wpe"], stored["model.decoder.embed_positions.weight"][2:])
    np.testing.assert_array_equal(read["head.weight"], stored["model.decoder.embed_tokens.weight"])


def test_a_position_table_without_the_two_rows_is_refused(tmp_path: Path) -> None:
    stored = opt.weights()
    table = "model.decoder.embed_positions.weight"
    folder = opt.folder(tmp_path, stored | {table: stored[table][2:]})
    with pytest.raises(InputError, match=r"shape \(20, 24\), but the model's sizes make it \(22, 24\)"):
        tensors.from_safetensors(folder, load_model(str(folder))[0])


def test_llama_by_name_and_shape(tmp_path: Path) -> None:
    model = load_model(str(DATA / "llama-gqa"))[0]
    stored = load_file(DATA / "llama-gqa" / "model.safetensors")
    read = tensors.from_safetensors(DATA / "llama-gqa", model)
    assert {name: array.shape for name, array in read.items()} == model.tensor_shapes()
    parts = [stored[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert [len(part) for part in parts] == [96, 32, 32]
    np.testing.assert_array_equal(read["layer1.qkv.weight"], np.concatenate(parts))
    for ours, theirs in {
        "layer0.ln1": "layers.0.input_layernorm", "layer0.proj": "layers.0.self_attn.o_proj",
        "layer0.ln2": "layers.0.post_attention_layernorm", "layer0.gate": "layers.0.mlp.gate_proj",
        "layer0.up": "layers.0.mlp.up_proj", "layer0.down": "layers.0.mlp.down_proj", "ln_f": "norm",
    }.items():  # fmt: skip
        np.testing.assert_array_equal(read[f"{ours}.weight"], stored[f"model.{theirs}.weight"])
    np.testing.assert_array_equal(read["wte"], stored["model.embed_tokens.weight"])
    np.testing.assert_array_equal(read["head.weight"], stored["lm_head.weight"])


def test_bf16_and_rotary_buffers_of_old_files(tmp_path: Path) -> None:
    model = load_model(str(DATA / "llama-gqa"))[0]
    stored = load_file(DATA / "llama-gqa" / "model.safetensors")
    half: dict[str, NDArray[np.generic]] = {name: array.astype(bfloat16) for name, array in stored.items()}
    half["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
    save_file(half, tmp_path / "model.safetensors")
    read = tensors.from_safetensors(tmp_path, model)
    whole = tensors.from_safetensors(DATA / "llama-gqa", model)
    for name, array in whole.items():
        np.testing.assert_array_equal(read[name], array.astype(bfloat16).astype(np.float32))


def test_a_projection_of_another_size_is_named(tmp_path: Path) -> None:
    model = load_model(str(DATA / "llama-gqa"), ["kv_heads=3"])[0]
    with pytest.raises(
        InputError, match=r"k_proj.weight: shape \(32, 96\), but the model's sizes make it \(48, 96\)"
    ):
        tensors.from_safetensors(DATA / "llama-gqa", model)


def test_random_weights_of_llama() -> None:
    drawn = tensors.random(load_model(str(DATA / "llama-gqa"))[0], 0)
    assert drawn["layer0.down.weight"].std() == pytest.approx(0.01, rel=0.05)
    assert drawn["layer0.gate.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert drawn["ln_f.weight"].mean() == pytest.approx(1, abs=0.05)
