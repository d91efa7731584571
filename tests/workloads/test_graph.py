"""The decoder's operators: names, order, data flow, shapes."""

from dataclasses import replace
from math import sqrt

import pytest

from pimloom.workloads.graph import decoder_ops
from pimloom.workloads.model import load_model

GPT2 = load_model("gpt2-small")[0]


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("head", [True, False])
def test_every_register_is_written_before_it_is_read(embedding: bool, head: bool) -> None:
    written = {"token"} if embedding else {"x"}
    last = ""
    for op in decoder_ops(GPT2, embedding, head).ops():
        assert set(op.inputs) <= written, op.name
        written.add(op.output)
        last = op.output
    assert last == ("logits" if head else "n")


def test_names_are_unique_and_parameters_are_exactly_the_stored_tensors() -> None:
    for model in (GPT2, GPT2.model_copy(update={"tied_head": False})):
        ops = list(decoder_ops(model, embedding=True, head=True).ops())
        assert len({op.name for op in ops}) == len(ops)
        names = [name for op in ops for name in op.parameters]
        assert len(set(names)) == len(names)
        assert set(names) == model.tensor_shapes().keys() | {"head.weight"}


def test_linear_shapes_are_those_of_their_weights() -> None:
    shapes = GPT2.tensor_shapes() | {"head.weight": (GPT2.vocab, GPT2.d_model)}
    for op in decoder_ops(GPT2, embedding=True, head=True).ops():
        if op.kind == "linear":
            assert op.shape == shapes[op.parameters[0]]


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
