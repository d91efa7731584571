"""Hugging Face `config.json` → the keys of `Model`, without the transformers package.

A key that could change what the model computes is translated or refused; only keys that are known to leave
inference alone are passed over. Defaults are those of transformers' `GPT2Config`, `OPTConfig`, `LlamaConfig` and
`MistralConfig`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

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
_WITHOUT_EFFECT = frozenset(
    # dropout and initial values: training only
    "attn_pdrop embd_pdrop resid_pdrop initializer_range gradient_checkpointing "  # noqa: SIM905
    "dropout attention_dropout activation_dropout layerdrop init_std "
    # storage type and the order of roundings; the arithmetic is the machine's
    "torch_dtype dtype use_bfloat16 reorder_and_upcast_attn pretraining_tp "
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

_ONLY: dict[str, tuple[object, ...]] = {
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}
"""Keys of any model that would change what is computed, and the values at which they do not."""


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
    named = config.get("model_type", Node(None, start, start))
    if not isinstance(named.value, str) or named.value not in _TYPES:
        what = f"{shown(named.plain())} is not supported" if "model_type" in config else "missing"
        reasons = Findings()
        reasons.add(named.place, ("model_type",), f"{what}; supported: {', '.join(_TYPES)}")
        reasons.raise_if_any()
    translation = _TYPES[str(named.value)](config, start, findings)
    fields = dict(translation.fields())
    translation.check_keys()
    findings.raise_if_any()

    name = path.resolve().parent.name if path.name == CONFIG else path.stem
    own: dict[str, Scalar] = {"kind": "model", "version": 1, "name": name, **translation.own}
    sources: dict[str, Node] = {CONFIG: Node(f"{path}, Hugging Face", start, start)}
    head = {key: Node(value, start, start) for key, value in own.items()}
    return Node(head | {"sources": Node(sources, start, start)} | fields, start, start)


class _Translation:
    """One config.json on its way to the keys of `Model`; what is wrong goes to `findings`."""

    defaults: ClassVar[str]
    """Class of transformers whose defaults are taken."""
    own: ClassVar[dict[str, Scalar]]
    """Keys of `Model` that the type of the model decides."""
    sizes: ClassVar[dict[str, str]]
    """Size in `Model` -> key, for those that are always there; among them d_model and heads."""
    second_names: ClassVar[dict[str, str]] = {}
    """Key -> another one for the same thing."""
    epsilon: ClassVar[tuple[str, float] | None]
    """Key of the norms' epsilon, and its default; None = it has none."""
    activation: ClassVar[tuple[str, str, dict[str, str]]]
    """Key, default, and name there -> name in `Model`."""
    claims: ClassVar[dict[str, tuple[str, bool]]]
    """Key of `Model` that is true or false -> key, default."""
    only: ClassVar[dict[str, tuple[object, ...]]]
    """Keys that would change what is computed, and the values at which they do not."""
    others: ClassVar[tuple[str, ...]] = ()
    """Further keys that `fields` translates."""

    def __init__(self, config: dict[str, Node], start: Place, findings: Findings) -> None:
        self.config, self.start, self.findings = config, start, findings

    def fields(self) -> Iterator[tuple[str, Node]]:
        """Each key of `Model` that the file decides, as far as the file is right."""
        sizes = {field: self.size(key) for field, key in self.sizes.items()}
        yield from ((field, _sourced(node)) for field, node in sizes.items() if node)
        yield from self.shapes(sizes["d_model"], sizes["heads"])
        yield from self.arithmetic()

    def shapes(self, d: Node | None, heads: Node | None) -> Iterator[tuple[str, Node]]:
        """The sizes that follow from several keys."""
        if d and heads:
            width, count = _integer(d), _integer(heads)
            whole, parts = self.sizes["d_model"], self.sizes["heads"]
            if width % count:
                self.wrong(heads, parts, f"{whole} {width} is no multiple of {parts} {count}")
            yield "d_head", _sourced(replace(heads, value=width // count), f"{whole} / {parts}")

    def arithmetic(self) -> Iterator[tuple[str, Node]]:
        """The keys that are no sizes."""
        key, default, names = self.activation
        activation = self.get(key, default)
        if str(activation.value) in names:
            yield "activation", _sourced(replace(activation, value=names[str(activation.value)]))
        else:
            found, known = shown(activation.plain()), ", ".join(names)
            self.wrong(activation, key, f"{found} is not supported; supported: {known}")
        if self.epsilon:
            yield "norm_epsilon", _sourced(self.get(*self.epsilon))
        for field, (key, claimed) in self.claims.items():
            node = self.get(key, claimed)
            if not isinstance(node.value, bool):
                self.wrong(node, key, f"should be true or false, not {shown(node.plain())}")
            yield field, _sourced(node)

    def check_keys(self) -> None:
        """Refuse keys that are not known, and values with which something else would be computed."""
        only = self.only | _ONLY
        translated = (
            "model_type", self.activation[0], *(self.epsilon or ())[:1], *self.sizes.values(), *self.second_names,
            *self.second_names.values(), *(key for key, _ in self.claims.values()), *only, *self.others,
        )  # fmt: skip
        for key, node in self.config.items():
            value = node.plain()
            if key in only and value not in only[key]:
                text = f"only {shown(only[key][0])} is supported, not {shown(value)}"
                self.findings.add(node.place, (key,), text)
            if key not in translated and key not in _WITHOUT_EFFECT:
                hint = did_you_mean(key, translated)
                self.findings.add(
                    node.key_place, (key,), f"unknown key; it might change what is computed{hint}"
                )

    def size(self, key: str) -> Node | None:
        """The integer under a key or its second name; None, and a finding, where there is no sensible one."""
        alias = self.second_names.get(key, key)
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

    def present(self, key: str) -> bool:
        """Whether a key is there and not null."""
        return key in self.config and self.config[key].value is not None

    def same(self, key: str, other: str) -> None:
        """Two names for one thing must not say different things."""
        if key in self.config and other in self.config:
            node, value = self.config[key], self.config[other].plain()
            if node.plain() != value:
                self.wrong(node, key, f"{shown(node.plain())}, but {other} is {shown(value)}")

    def get(self, key: str, default: Scalar) -> Node:
        """The value under a key, or transformers' default."""
        note = f"{key} is absent: the default of transformers' {self.defaults}"
        return self.config.get(key, Node(default, self.start, self.start, note=note))

    def wrong(self, node: Node, key: str, message: str) -> None:
        """Note a finding about the value under a key."""
        self.findings.add(node.place, tuple(key.split(".")), message)


class _Gpt2(_Translation):
    defaults = "GPT2Config"
    own: ClassVar = {"family": "gpt2", "bias": True}
    sizes: ClassVar = {
        "layers": "n_layer", "d_model": "n_embd", "heads": "n_head", "vocab": "vocab_size",
        "positions": "n_positions",
    }  # fmt: skip
    # GPT2Config.attribute_map
    second_names: ClassVar = {
        "n_layer": "num_hidden_layers", "n_embd": "hidden_size", "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
    }  # fmt: skip
    epsilon = "layer_norm_epsilon", 1e-5
    activation = (
        "activation_function", "gelu_new",
        {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"},
    )  # fmt: skip
    claims: ClassVar = {
        "tied_head": ("tie_word_embeddings", True),
        "scale_attention": ("scale_attn_weights", True),
        "scale_by_layer": ("scale_attn_by_inverse_layer_idx", False),
    }
    only: ClassVar = {}
    others = "n_inner", "n_ctx"

    def shapes(self, d: Node | None, heads: Node | None) -> Iterator[tuple[str, Node]]:
        yield from super().shapes(d, heads)
        if self.present("n_inner"):
            inner = self.size("n_inner")
            if inner:
                yield "d_ff", _sourced(inner)
        elif d:
            yield "d_ff", _sourced(replace(d, value=4 * _integer(d)), "4 x n_embd, as n_inner is null")
        self.same("n_ctx", "n_positions")


class _Opt(_Translation):
    defaults = "OPTConfig"
    own: ClassVar = {"family": "opt", "bias": True}
    sizes: ClassVar = {
        "layers": "num_hidden_layers", "d_model": "hidden_size", "heads": "num_attention_heads",
        "d_ff": "ffn_dim", "vocab": "vocab_size", "positions": "max_position_embeddings",
    }  # fmt: skip
    epsilon = None
    activation = "activation_function", "relu", {"relu": "relu"}
    claims: ClassVar = {"tied_head": ("tie_word_embeddings", True)}
    only: ClassVar = {
        "do_layer_norm_before": (True,),
        "_remove_final_layer_norm": (False,),
        "enable_bias": (True,),
        "layer_norm_elementwise_affine": (True,),
    }
    others = ("word_embed_proj_dim",)

    def shapes(self, d: Node | None, heads: Node | None) -> Iterator[tuple[str, Node]]:
        yield from super().shapes(d, heads)
        if self.present("word_embed_proj_dim"):
            self.same("word_embed_proj_dim", "hidden_size")

    def arithmetic(self) -> Iterator[tuple[str, Node]]:
        yield from super().arithmetic()
        epsilon = Node(1e-5, self.start, self.start)
        yield "norm_epsilon", _sourced(epsilon, "OPTConfig has no key for it: that of torch's LayerNorm")


class _Llama(_Translation):
    defaults = "LlamaConfig"
    own: ClassVar = {"family": "llama", "bias": False}
    sizes: ClassVar = {
        "layers": "num_hidden_layers", "d_model": "hidden_size", "heads": "num_attention_heads",
        "d_ff": "intermediate_size", "vocab": "vocab_size", "positions": "max_position_embeddings",
    }  # fmt: skip
    second_names: ClassVar = {"max_position_embeddings": "max_sequence_length"}
    epsilon = "rms_norm_eps", 1e-6
    activation = "hidden_act", "silu", {"silu": "silu"}
    claims: ClassVar = {"tied_head": ("tie_word_embeddings", False)}
    only: ClassVar = {"attention_bias": (False,), "mlp_bias": (False,)}
    others = "head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "rope_parameters"
    kv_heads: ClassVar[int | None] = None
    """Default of num_key_value_heads; None = as many as heads."""

    def shapes(self, d: Node | None, heads: Node | None) -> Iterator[tuple[str, Node]]:
        if self.present("head_dim"):
            size = self.size("head_dim")
            if size:
                yield "d_head", _sourced(size)
        else:
            yield from super().shapes(d, heads)
        key = "num_key_value_heads"
        if self.present(key):
            count = self.size(key)
            if count:
                yield "kv_heads", _sourced(count)
        elif key not in self.config and self.kv_heads:
            yield "kv_heads", _sourced(self.get(key, self.kv_heads))
        elif heads:
            yield "kv_heads", _sourced(heads, f"num_attention_heads, as {key} is null")

    def arithmetic(self) -> Iterator[tuple[str, Node]]:
        yield from super().arithmetic()
        yield "rope", Node(dict(self.rope()), self.start, self.start)

    def rope(self) -> Iterator[tuple[str, Node]]:
        """The keys of `Rope`: transformers 5 has all of them below rope_parameters, before that theta stood beside."""
        given = [key for key in ("rope_parameters", "rope_scaling") if self.present(key)]
        within: dict[str, Node] = {}
        for key in given:
            node = self.config[key]
            if not isinstance(node.value, dict):
                self.wrong(node, key, f"should be a mapping, not {shown(node.plain())}")
            elif key != given[0]:
                self.wrong(node, key, f"given beside {given[0]}, which stands for the same")
            else:
                within = node.value
        theta = within.get("rope_theta") or self.get("rope_theta", 10000.0)
        if "rope_theta" in self.config and theta.plain() != self.config["rope_theta"].plain():
            value = shown(self.config["rope_theta"].plain())
            self.wrong(theta, f"{given[0]}.rope_theta", f"{shown(theta.plain())}, but rope_theta is {value}")
        yield "theta", _sourced(theta)
        if within:
            yield from self.scaling(given[0], within)

    def scaling(self, parent: str, within: dict[str, Node]) -> Iterator[tuple[str, Node]]:
        """The key `scaling` of `Rope`, for a scaling that is known."""
        plain = Node("default", self.start, self.start)
        kind = within.get("rope_type") or within.get("type") or plain
        names = {"default": {}, "llama3": _LLAMA3}
        if str(kind.value) not in names:
            found, known = shown(kind.plain()), ", ".join(names)
            self.wrong(kind, f"{parent}.rope_type", f"{found} is not supported; supported: {known}")
            return
        wanted = names[str(kind.value)]
        for key, node in within.items():
            if key not in (*wanted, "rope_type", "type", "rope_theta"):
                text = f"unknown key; it might change what is computed{did_you_mean(key, [*wanted, 'rope_theta'])}"
                self.findings.add(node.key_place, (parent, key), text)
        for key in wanted.keys() - within.keys():
            self.findings.add(self.config[parent].key_place, (parent, key), "missing")
        if wanted:
            keys = {field: _sourced(within[key]) for key, field in wanted.items() if key in within}
            yield "scaling", Node(keys, kind.place, kind.key_place)


_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "original_max_position_embeddings": "original_positions",
}
"""Key of a rope_scaling of type llama3 -> key of `RopeScaling`."""


class _Mistral(_Llama):
    """Llama with a window that attention may be confined to; without it the same."""

    defaults = "MistralConfig"
    only: ClassVar = {"sliding_window": (None,)}
    kv_heads = 8

    def check_keys(self) -> None:
        super().check_keys()
        if "sliding_window" not in self.config:
            self.findings.add(
                self.start, ("sliding_window",), "missing, which means 4096; only null is supported"
            )


_TYPES: dict[str, type[_Translation]] = {
    "gpt2": _Gpt2, "opt": _Opt, "llama": _Llama, "mistral": _Mistral,
}  # fmt: skip
"""model_type -> how its config.json is read."""


def _keys(path: Path, findings: Findings) -> dict[str, Node]:
    root = read_file(path, findings)
    assert isinstance(root.value, dict)
    return root.value


def _integer(node: Node) -> int:
    assert isinstance(node.value, int)
    return node.value


def _sourced(node: Node, note: str | None = None) -> Node:
    return replace(node, source=CONFIG, note=note or node.note)
