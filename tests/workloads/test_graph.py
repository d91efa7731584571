"""The decoder's operators: names, order, data flow, shapes."""

from dataclasses import replace
from math import sqrt

import pytest

from pimloom.workloads.graph import decoder_ops
from pimloom.workloads.model import Model, load_model

GPT2 = load_model("gpt2-small")[0]
OPT = load_model("opt-125m")[0]
LLAMA = load_model("llama3-8b")[0]
FAMILIES = pytest.mark.parametrize("model", [GPT2, OPT, LLAMA], ids=lambda model: model.family)


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("head", [True, False])
@FAMILIES
def test_every_register_is_written_before_it_is_read(model: Model, embedding: bool, head: bool) -> None:
    written = {"token"} if embedding else {"x"}
    last = ""
    for op in decoder_ops(model, embedding, head).ops():
        assert set(op.inputs) <= written, op.name
        written.add(op.output)
        last = op.output
    assert last == ("logits" if head else "n")


@FAMILIES
def test_names_are_unique_and_parameters_are_exactly_the_stored_tensors(model: Model) -> None:
    for tied in (True, False):
        model = model.model_copy(update={"tied_head": tied})
        ops = list(decoder_ops(model, embedding=True, head=True).ops())
        assert len({op.name for op in ops}) == len(ops)
        names = [name for op in ops for name in op.parameters]
        assert len(set(names)) == len(names)
        assert set(names) == model.tensor_shapes().keys() | {"head.weight"}


@FAMILIES
def test_linear_shapes_are_those_of_their_weights(model: Model) -> None:
    shapes = model.tensor_shapes() | {"head.weight": (model.vocab, model.d_model)}
    for op in decoder_ops(model, embedding=True, head=True).ops():
        if op.kind == "linear":
            assert op.shape == shapes[op.parameters[0]]
            biases = [op.shape[:1]] if model.bias and op.group != "lm_head" else []
            assert [shapes[bias] for bias in op.parameters[1:]] == biases


def test_a_layer_is_the_template_with_its_number() -> None:
    graph = decoder_ops(GPT2, embedding=True, head=True)
    for template, op in zip(graph.layer, graph.for_layer(7), strict=True):
        assert (op.name, op.layer) == (f"layer7.{template.name}", 7)
        assert replace(op, name=template.name, layer=-1, parameters=template.parameters) == template
    with pytest.raises(IndexError, match="layer 12 of a model that has 12"):
        graph.for_layer(12)


def test_order_of_the_groups_in_a_layer() -> None:
    groups = [op.group for op in decoder_ops(GPT2, embedding=True, head=True).layer]
    assert groups == [
        "norm", "qkv", "score", "kv_write", "score", "softmax", "kv_write", "context", "projection",
        "residual", "norm", "ffn1", "activation", "ffn2", "residual",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scale_attention", "scale_by_layer", "factor"),
    [(True, False, 1 / sqrt(64)), (True, True, 1 / sqrt(64) / 4), (False, True, 1 / 4), (False, False, 1.0)],
)
def test_scale_factor(scale_attention: bool, scale_by_layer: bool, factor: float) -> None:
    model = GPT2.model_copy(update={"scale_attention": scale_attention, "scale_by_layer": scale_by_layer})
    factors = {op.kind: op.factor for op in decoder_ops(model, embedding=True, head=True).for_layer(3)}
    assert factors.pop("scale") == factor
    assert set(factors.values()) == {1.0}


def test_parts_of_qkv() -> None:
    parts = {op.kind: op.part for op in decoder_ops(GPT2, embedding=True, head=True).layer if op.part}
    assert parts == {"scale": (0, 768), "cache_k": (768, 1536), "cache_v": (1536, 2304)}


def test_opt_is_gpt2_with_other_sizes() -> None:
    same = GPT2.model_copy(update={"family": "opt", "activation": "relu", "vocab": 50272, "positions": 2048})
    for mine, theirs in zip(
        decoder_ops(OPT, True, True).ops(), decoder_ops(same, True, True).ops(), strict=True
    ):
        assert mine == theirs


def test_a_layer_of_llama() -> None:
    """Grouped queries, rotary positions before the scaling and the cache, and a gate in the feed-forward part."""
    layer = {op.name: op for op in decoder_ops(LLAMA, embedding=True, head=True).layer}
    assert [(op.kind, op.group) for op in layer.values()] == [
        ("rmsnorm", "norm"), ("linear", "qkv"), ("rotary", "rotary"), ("scale", "score"), ("rotary", "rotary"),
        ("cache_k", "kv_write"), ("score", "score"), ("softmax", "softmax"), ("cache_v", "kv_write"),
        ("context", "context"), ("linear", "projection"), ("add", "residual"), ("rmsnorm", "norm"),
        ("linear", "ffn1"), ("linear", "ffn1"), ("activation", "activation"), ("multiply", "activation"),
        ("linear", "ffn2"), ("add", "residual"),
    ]  # fmt: skip
    assert {name: op.part for name, op in layer.items() if op.part} == {
        "rotary_q": (0, 4096), "rotary_k": (4096, 5120), "cache_v": (5120, 6144),
    }  # fmt: skip
    assert {name: op.shape for name, op in layer.items() if op.kind != "linear"} == {
        "ln1": (4096,), "rotary_q": (32, 128), "scale": (4096,), "rotary_k": (8, 128), "cache_k": (1024,),
        "score": (32, 128), "softmax": (32, 128), "cache_v": (1024,), "context": (32, 128), "add1": (4096,),
        "ln2": (4096,), "activation": (14336,), "multiply": (14336,), "add2": (4096,),
    }  # fmt: skip
    assert {name: op.kv_heads for name, op in layer.items() if op.kv_heads} == {"score": 8, "context": 8}
    assert layer["multiply"].inputs == (layer["activation"].output, layer["up"].output)
    assert layer["activation"].inputs == (layer["gate"].output,)


def test_heads_may_be_narrower_than_the_model() -> None:
    model = LLAMA.model_copy(update={"d_head": 64})
    layer = {op.name: op for op in decoder_ops(model, embedding=True, head=True).layer}
    assert (layer["qkv"].shape, layer["proj"].shape) == ((2048 + 2 * 512, 4096), (4096, 2048))
