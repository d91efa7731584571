"""The NumPy decoder against Hugging Face's logits, and its parts against their formulae."""

from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.document import InputError
from pimloom.workloads import tensors
from pimloom.workloads.graph import Op
from pimloom.workloads.model import Rope, RopeScaling, load_model
from pimloom.workloads.reference import (
    Array,
    ReferenceDecoder,
    gelu_tanh,
    layernorm,
    rmsnorm,
    rotary_frequencies,
    rotated,
    silu,
    softmax,
)
from tests import opt

DATA = Path(__file__).parent.parent / "data" / "functional"


def decoder(name: str) -> ReferenceDecoder:
    model, _ = load_model(str(DATA / name))
    return ReferenceDecoder(model, tensors.from_safetensors(DATA / name, model))


@pytest.mark.parametrize("name", ["gpt2-tiny", "gpt2-uneven", "llama-gqa"])
def test_logits_and_greedy_tokens_are_those_of_hugging_face(name: str) -> None:
    io = np.load(DATA / name / "io.npz")
    reference = decoder(name)
    prefill = reference.prefill(io["prompt"].tolist())
    steps = [prefill[-1], *(reference.step(int(token)) for token in io["generated"][:-1])]
    for ours, theirs in ((prefill, io["prefill_logits"]), (np.stack(steps), io["step_logits"])):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    np.testing.assert_array_equal(np.argmax(steps, axis=-1), io["generated"])
    assert reference.position == len(io["prompt"]) + len(io["generated"]) - 1


def test_every_operator_can_be_observed() -> None:
    seen: dict[str, Array] = {}

    def observe(op: Op, value: Array) -> None:
        seen[op.name] = value

    reference = decoder("gpt2-uneven")
    logits = reference.step(5, observe)
    reference.step(6, observe)
    assert len(seen) == 1 + 3 * 15 + 2
    assert seen["layer2.score"].shape == seen["layer2.softmax"].shape == (5, 2)
    np.testing.assert_allclose(seen["layer2.softmax"].sum(axis=-1), 1, rtol=1e-6)
    assert all(value.dtype == np.float32 for value in seen.values())
    assert logits.shape == seen["lm_head"].shape == (211,)


def test_opt_against_a_forward_pass_of_its_own(tmp_path: Path) -> None:
    stored = opt.weights()
    folder = opt.folder(tmp_path, stored)
    model, _ = load_model(str(folder))
    prompt = np.random.default_rng(3).integers(0, opt.VOCAB, opt.POSITIONS).tolist()
    ours = ReferenceDecoder(model, tensors.from_safetensors(folder, model)).prefill(prompt)
    theirs = opt.logits(stored, prompt)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    np.testing.assert_array_equal(ours.argmax(-1), theirs.argmax(-1))


@pytest.mark.parametrize("d_head", [2, 6, 64])
def test_rotary_frequencies_by_their_formula(d_head: int) -> None:
    """Unscaled, and stretched pair by pair as Llama 3 has it."""
    theta, factor, low, high, old = 5e5, 8.0, 1.0, 4.0, 8192
    plain = [theta ** (-2 * i / d_head) for i in range(d_head // 2)]
    np.testing.assert_allclose(rotary_frequencies(Rope(theta=theta), d_head), plain, rtol=1e-5)
    expected = []
    for frequency in plain:
        wavelength = 2 * np.pi / frequency
        if wavelength < old / high:
            expected.append(frequency)
        elif wavelength > old / low:
            expected.append(frequency / factor)
        else:
            share = (old / wavelength - low) / (high - low)
            expected.append((1 - share) * frequency / factor + share * frequency)
    scaling = RopeScaling(
        factor=factor, low_frequency_factor=low, high_frequency_factor=high, original_positions=old
    )
    got = rotary_frequencies(Rope(theta=theta, scaling=scaling), d_head)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if d_head == 64:  # all three kinds of pairs are there
        ratios = got / np.float32(plain)
        assert {ratios[0].round(4), ratios[-1].round(4)} == {1, np.float32(0.125)}
        assert ((ratios > 0.13) & (ratios < 0.99)).any()


def test_rotation_turns_element_i_with_the_one_half_a_head_on() -> None:
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    frequencies = np.array([1, 0.5, 0.25, 0], np.float32)
    turned = rotated(x, 3, frequencies)
    points = (x[:, :4] + 1j * x[:, 4:]) * np.exp(3j * frequencies)
    np.testing.assert_allclose(turned, np.concatenate([points.real, points.imag], -1), atol=1e-6)
    np.testing.assert_array_equal(rotated(x, 0, frequencies), x)


def test_scores_scaled_by_layer() -> None:
    model, _ = load_model(str(DATA / "gpt2-tiny"), ["scale_by_layer=true", "scale_attention=false"])
    seen: dict[str, Array] = {}
    ReferenceDecoder(model, tensors.random(model, 0)).step(1, lambda op, value: seen.update({op.name: value}))
    for layer in range(2):
        q = seen[f"layer{layer}.qkv"][:64]
        np.testing.assert_array_equal(seen[f"layer{layer}.scale"], q / np.float32(layer + 1))


def test_relu() -> None:
    model, _ = load_model(str(DATA / "gpt2-tiny"), ["activation=relu"])
    seen: dict[str, Array] = {}
    ReferenceDecoder(model, tensors.random(model, 0)).step(1, lambda op, value: seen.update({op.name: value}))
    np.testing.assert_array_equal(seen["layer0.activation"], np.maximum(seen["layer0.ffn1"], 0))


def test_a_token_or_a_position_too_many() -> None:
    model, _ = load_model(str(DATA / "gpt2-tiny"), ["positions=2"])
    reference = ReferenceDecoder(model, tensors.random(model, 0))
    for token in (-1, 257):
        with pytest.raises(InputError, match=f"token {token} is not in the vocabulary, which has 257"):
            reference.step(token)
    reference.prefill([0, 256])
    with pytest.raises(InputError, match="token 3, but the model has 2 positions"):
        reference.step(0)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_functions_against_double_precision(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32) * 3
    wide = x.astype(np.float64)
    np.testing.assert_allclose(softmax(x), np.exp(wide) / np.exp(wide).sum(), rtol=1e-5)
    centred = wide - wide.mean()
    expected = centred / np.sqrt(wide.var() + 1e-5) * 2 + 1
    two, one = np.full(size, 2, np.float32), np.ones(size, np.float32)
    np.testing.assert_allclose(layernorm(x, two, one, 1e-5), expected, rtol=1e-4, atol=1e-5)
    scaled = wide / np.sqrt((wide**2).mean() + 1e-5) * 2
    np.testing.assert_allclose(rmsnorm(x, two, 1e-5), scaled, rtol=1e-5)
    np.testing.assert_allclose(silu(x), wide / (1 + np.exp(-wide)), rtol=1e-5)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    np.testing.assert_allclose(gelu_tanh(x), wide / 2 * (1 + np.tanh(inner)), rtol=1e-4, atol=1e-6)


def test_softmax_of_large_values() -> None:
    np.testing.assert_allclose(softmax(np.array([1e4, 1e4 - 1], np.float32)), [0.731059, 0.268941], rtol=1e-5)


def test_silu_of_large_values() -> None:
    np.testing.assert_array_equal(silu(np.array([-1e4, 0, 1e4], np.float32)), [0, 0, 1e4])
