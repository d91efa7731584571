"""Hugging Face `config.json` → the keys of `Model`, without the transformers package.

A key that could change what the model computes is translated or refused; only keys that are known to leave
inference alone are passed over. Defaults are those of transformers' `GPT2Config`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pimloom.arch.document import shipped
from pimloom.arch.tree import (
    Findings,
    InputError,
    Node,
    Place,
    Scalar,
    did_you_mean,
    is_file,
    read_file,
    shown,
)

CONFIG = "config.json"
FAMILIES = ("gpt2",)
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}

_SIZES = {
    "layers": "n_layer", "d_model": "n_embd", "heads": "n_head", "vocab": "vocab_size",
    "positions": "n_positions",
}  # fmt: skip
_ALIASES = {
    "n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}  # fmt: skip
"""GPT2Config.attribute_map: a second name for the same thing."""
_CLAIMS = {
    "tied_head": ("tie_word_embeddings", True),
    "scale_attention": ("scale_attn_weights", True),
    "scale_by_layer": ("scale_attn_by_inverse_layer_idx", False),
}
_ONLY: dict[str, tuple[object, ...]] = {
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
"""Keys that would change what is computed, and the values at which they do not."""
_TRANSLATED = (
    "model_type", "n_inner", "activation_function", "layer_norm_epsilon", "n_ctx", *_SIZES.values(),
    *_ALIASES.values(), *(key for key, _ in _CLAIMS.values()), *_ONLY,
)  # fmt: skip
_WITHOUT_EFFECT = frozenset(
    # dropout and initial values: training only
    "attn_pdrop embd_pdrop resid_pdrop initializer_range gradient_checkpointing "  # noqa: SIM905
    # storage type and the order of one rounding; the arithmetic is the machine's
    "torch_dtype dtype use_bfloat16 reorder_and_upcast_attn "
    # who wrote the file, for which class, tokenizer and task
    "architectures transformers_version _name_or_path name_or_path _commit_hash auto_map tokenizer_class "
    "prefix bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id unk_token_id "
    "decoder_start_token_id task_specific_params predict_special_tokens finetuning_task "
    "problem_type id2label label2id num_labels _num_labels summary_activation summary_first_dropout "
    "summary_proj_to_labels summary_type summary_use_proj "
    # how the same result is computed and handed back
    "use_cache output_past output_attentions output_hidden_states return_dict use_return_dict "
    "return_dict_in_generate output_scores torchscript tf_legacy_loss chunk_size_feed_forward is_decoder "
    "tie_encoder_decoder cross_attention_hidden_size _attn_implementation _attn_implementation_autoset "
    # how a token is drawn from the logits
    "max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups "
    "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty "
    "no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences "
    "remove_invalid_values suppress_tokens begin_suppress_tokens exponential_decay_length_penalty "
    "forced_bos_token_id forced_eos_token_id".split()
)


def config_path(name_or_path: str) -> Path | None:
    """The config.json that a name means: a folder that holds one, or a JSON file without `kind:`; else None.

    A shipped name goes before a folder of that name in the current directory, which is ./NAME.
    Raises InputError for a folder without config.json.
    """
    path = Path(name_or_path)
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):
        return None
    if is_folder and name_or_path not in shipped("model"):
        if not is_file(path / CONFIG):
            raise InputError(f"{path}: this folder holds no {CONFIG}")
        return path / CONFIG
    if path.suffix == ".json" and is_file(path) and "kind" not in _keys(path, Findings()):
        return path
    return None


def read_config(path: Path) -> Node:
    """The keys of `Model` as a document whose values stand where config.json has them.

    Raises InputError with a line for each thing that is wrong; for another family of models, with that alone.
    """
    findings = Findings()
    config = _keys(path, findings)
    start = Place(str(path), 1, 1)
    family = config.get("model_type", Node(None, start, start))
    if family.value not in FAMILIES:
        what = f"{shown(family.plain())} is not supported" if "model_type" in config else "missing"
        reasons = Findings()
        reasons.add(family.place, ("model_type",), f"{what}; supported: {', '.join(FAMILIES)}")
        reasons.raise_if_any()
    fields = dict(_Translation(config, start, findings).fields())
    for key, node in config.items():
        value = node.plain()
        if key in _ONLY and value not in _ONLY[key]:
            findings.add(node.place, (key,), f"only {shown(_ONLY[key][0])} is supported, not {shown(value)}")
        if key not in _TRANSLATED and key not in _WITHOUT_EFFECT:
            hint = did_you_mean(key, _TRANSLATED)
            findings.add(node.key_place, (key,), f"unknown key; it might change what is computed{hint}")
    findings.raise_if_any()

    name = path.resolve().parent.name if path.name == CONFIG else path.stem
    own: dict[str, Scalar] = {"kind": "model", "version": 1, "name": name, "family": "gpt2", "bias": True}
    sources: dict[str, Node] = {CONFIG: Node(f"{path}, Hugging Face", start, start)}
    head = {key: Node(value, start, start) for key, value in own.items()}
    return Node(head | {"sources": Node(sources, start, start)} | fields, start, start)


class _Translation:
    """One config.json on its way to the keys of `Model`; what is wrong goes to `findings`."""

    def __init__(self, config: dict[str, Node], start: Place, findings: Findings) -> None:
        self.config, self.start, self.findings = config, start, findings

    def fields(self) -> Iterator[tuple[str, Node]]:
        """Each key of `Model` that the file decides, as far as the file is right."""
        sizes = {field: self.size(key) for field, key in _SIZES.items()}
        yield from ((field, _sourced(node)) for field, node in sizes.items() if node)
        d, heads = sizes["d_model"], sizes["heads"]
        if d and heads:
            width, count = _integer(d), _integer(heads)
            if width % count:
                self.wrong(heads, "n_head", f"n_embd {width} is no multiple of n_head {count}")
            yield "d_head", _sourced(replace(heads, value=width // count), "n_embd / n_head")
        if self.config.get("n_inner", Node(None, self.start, self.start)).value is not None:
            inner = self.size("n_inner")
            if inner:
                yield "d_ff", _sourced(inner)
        elif d:
            yield "d_ff", _sourced(replace(d, value=4 * _integer(d)), "4 x n_embd, as n_inner is null")
        self.same("n_ctx", "n_positions")
        yield from self.arithmetic()

    def arithmetic(self) -> Iterator[tuple[str, Node]]:
        """The keys that are no sizes."""
        activation = self.get("activation_function", "gelu_new")
        if str(activation.value) in ACTIVATIONS:
            yield "activation", _sourced(replace(activation, value=ACTIVATIONS[str(activation.value)]))
        else:
            found, known = shown(activation.plain()), ", ".join(ACTIVATIONS)
            self.wrong(activation, "activation_function", f"{found} is not supported; supported: {known}")
        yield "norm_epsilon", _sourced(self.get("layer_norm_epsilon", 1e-5))
        for field, (key, default) in _CLAIMS.items():
            node = self.get(key, default)
            if not isinstance(node.value, bool):
                self.wrong(node, key, f"should be true or false, not {shown(node.plain())}")
            yield field, _sourced(node)

    def size(self, key: str) -> Node | None:
        """The integer under a key or its second name; None, and a finding, where there is no sensible one."""
        alias = _ALIASES.get(key, key)
        self.same(alias, key)
        name = key if key in self.config else alias
        if name not in self.config:
            self.findings.add(self.start, (key,), "missing")
            return None
        node = self.config[name]
        if type(node.value) is int and node.value >= 1:
            return node
        self.wrong(node, name, f"should be an integer of at least 1, not {shown(node.plain())}")
        return None

    def same(self, key: str, other: str) -> None:
        """Two names for one thing must not say different things."""
        if key in self.config and other in self.config:
            node, value = self.config[key], self.config[other].plain()
            if node.plain() != value:
                self.wrong(node, key, f"{shown(node.plain())}, but {other} is {shown(value)}")

    def get(self, key: str, default: Scalar) -> Node:
        """The value under a key, or transformers' default."""
        note = f"{key} is absent: the default of transformers' GPT2Config"
        return self.config.get(key, Node(default, self.start, self.start, note=note))

    def wrong(self, node: Node, key: str, message: str) -> None:
        """Note a finding about the value under a key."""
        self.findings.add(node.place, (key,), message)


def _keys(path: Path, findings: Findings) -> dict[str, Node]:
    root = read_file(path, findings)
    assert isinstance(root.value, dict)
    return root.value


def _integer(node: Node) -> int:
    assert isinstance(node.value, int)
    return node.value


def _sourced(node: Node, note: str | None = None) -> Node:
    return replace(node, source=CONFIG, note=note or node.note)
