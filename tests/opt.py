"""A small OPT as Hugging Face stores one, and its logits by a forward pass of the whole sequence in double precision.

Nothing of pimloom is used, so that a name, an offset or an order taken wrongly there shows here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Weights = dict[str, NDArray[np.float32]]

LAYERS, D, HEADS, FFN, VOCAB, POSITIONS = 2, 24, 3, 40, 37, 20
CONFIG: dict[str, Any] = {
    "_name_or_path": "facebook/opt-125m",
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "eos_token_id": 2,
    "ffn_dim": FFN,
    "hidden_size": D,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": POSITIONS,
    "model_type": "opt",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 1,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "transformers_version": "4.21.0.dev0",
    "use_cache": True,
    "vocab_size": VOCAB,
    "word_embed_proj_dim": D,
}


def weights(seed: int = 0) -> Weights:
    """Large enough that every part of the model moves the logits."""
    draw = np.random.default_rng(seed).standard_normal
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCAB, D), "embed_positions.weight": (POSITIONS + 2, D),
        "final_layer_norm.weight": (D,), "final_layer_norm.bias": (D,),
    }  # fmt: skip
    modules: dict[str, tuple[int, ...]] = {
        "self_attn_layer_norm": (D,), "self_attn.q_proj": (D, D), "self_attn.k_proj": (D, D),
        "self_attn.v_proj": (D, D), "self_attn.out_proj": (D, D), "final_layer_norm": (D,), "fc1": (FFN, D),
        "fc2": (D, FFN),
    }  # fmt: skip
    for layer in range(LAYERS):
        for module, shape in modules.items():
            shapes[f"layers.{layer}.{module}.weight"] = shape
            shapes[f"layers.{layer}.{module}.bias"] = shape[:1]
    return {f"model.decoder.{name}": np.float32(0.3) * draw(s, np.float32) for name, s in shapes.items()}


def folder(path: Path, stored: Weights) -> Path:
    """`path`, holding config.json and the weights."""
    (path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file(stored, path / "model.safetensors")
    return path


def logits(stored: Weights, tokens: list[int]) -> NDArray[np.float64]:
    """f8[len(tokens), vocab]."""
    w = {name.removeprefix("model.decoder."): a.astype(np.float64) for name, a in stored.items()}
    n, size = len(tokens), D // HEADS

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (x - x.mean(-1, keepdims=True)) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    def project(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embed_tokens.weight"][tokens] + w["embed_positions.weight"][2 : n + 2]
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        h = norm(x, f"{at}.self_attn_layer_norm")
        q, k, v = (
            project(h, f"{at}.self_attn.{part}_proj").reshape(n, HEADS, size).transpose(1, 0, 2)
            for part in "qkv"
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(size)
        scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (powers / powers.sum(-1, keepdims=True)) @ v
        x = x + project(mixed.transpose(1, 0, 2).reshape(n, D), f"{at}.self_attn.out_proj")
        h = norm(x, f"{at}.final_layer_norm")
        x = x + project(np.maximum(project(h, f"{at}.fc1"), 0), f"{at}.fc2")
    return norm(x, "final_layer_norm") @ w["embed_tokens.weight"].T
