"""The loss is the negative log-likelihood averaged over every order of filling in.

    python -m pytest tests/test_model.py

And the facts about the network that this rests on: it sees both sides, and never MASK.
"""
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import grpo
from model import (MaskedDiffusionLM, ModelConfig, chunks, diffusion_loss, distinct, draw_masks,
                   from_weights, rotate)

torch.set_num_threads(1)    # tensors this small only wait for a second thread
EOS, MASK = 4, 2            # in the middle of the vocabulary: nothing may rely on their being last


def tiny_model(seed=4, vocab_size=6, mask_id=MASK, eos_id=EOS, sharpness=3.0, max_length=16):
    """Every weight random (a fresh network's blocks start as the identity), logits of std about
    `sharpness`, so that the distributions are far from uniform and differ between positions. With
    the default seed, texts end at many different places."""
    generator = torch.Generator().manual_seed(seed)
    model = MaskedDiffusionLM(ModelConfig(vocab_size, mask_id, eos_id, max_length, n_layer=2,
                                          n_head=2, n_embd=16, n_hidden=24))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            std = (sharpness if name == "ff_out.weight" else 1.5) * weight.shape[-1] ** -0.5
            if weight.ndim == 2:
                weight.normal_(0, std, generator=generator)
            else:
                weight.normal_(1, 0.1, generator=generator)
    return model


def watch(model):
    """A list that collects the canvases the model is run on, one tensor a call."""
    canvases = []
    model.register_forward_hook(lambda module, args, logits: canvases.append(args[0].clone()))
    return canvases


@pytest.fixture
def model():
    return tiny_model()


# ----------------------------------------------------------------------------------------------
# the loss

def test_the_expected_diffusion_loss_is_the_any_order_negative_log_likelihood(model):
    prompt, completion, L = torch.tensor([[3, 0]]), torch.tensor([[1, 5, EOS]]), 3
    # Over all 2^3 mask sets M, P(M | t) = t^m (1-t)^(3-m). With the loss's 1/t this is a polynomial
    # of degree 2 in t, and the two Gauss-Legendre points integrate degree 3 exactly.
    expected = 0.0
    for t in (0.5 - 0.5 / math.sqrt(3), 0.5 + 0.5 / math.sqrt(3)):
        for mask in itertools.product([False, True], repeat=L):
            m, is_masked = sum(mask), torch.tensor([mask])
            loss = diffusion_loss(model, prompt, completion, torch.tensor([t]), is_masked).item()
            expected += 0.5 * t ** m * (1 - t) ** (L - m) * loss
    orders = torch.tensor(list(itertools.permutations(range(L))))
    pieces = grpo.log_probs(model, prompt.expand(6, -1), completion.expand(6, -1), orders)
    any_order = -sum(logp.sum().item() for _, _, logp in pieces) / 6
    assert expected * L == pytest.approx(any_order, rel=1e-5)


def test_the_diffusion_loss_by_hand_of_which_only_completion_tokens_are_ever_masked():
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]])      # of the completion
    canvases = []

    def stand_in(canvas, wanted):
        canvases.append(canvas.tolist())
        logits = torch.zeros(*canvas.shape, 3)
        logits[:, -2:] = probabilities.log()
        return logits[wanted]

    stand_in.config = SimpleNamespace(mask_id=2)
    prompt, completion = torch.tensor([[0], [1]]), torch.tensor([[0, 1], [1, 0]])
    #   row 0: p = 1/2 hidden, 3/4 visible; t = 1/2      row 1: p = 1/2 and 1/4, both hidden; t = 1
    loss = diffusion_loss(stand_in, prompt, completion, torch.tensor([0.5, 1.0]),
                          torch.tensor([[True, False], [True, True]]))
    assert float(loss) == pytest.approx((math.log(2) / 0.5 + math.log(2) + math.log(4)) / 4)
    assert canvases == [[[0, 2, 1], [1, 2, 2]]]
    nothing = torch.zeros(2, 2).bool()
    assert float(diffusion_loss(stand_in, prompt, completion, torch.ones(2), nothing)) == 0


@pytest.mark.parametrize("n_rows", [1, 3, 1000])
@pytest.mark.parametrize("u", [0.0, 1 - 2 ** -24])      # the smallest and largest that rand returns
def test_t_is_never_zero_and_never_above_one(monkeypatch, n_rows, u):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, u))
    t, _ = draw_masks(n_rows, 2)
    assert 0 < t.min() and t.max() <= 1     # 1/t is a weight: at t = 0 the loss is nan


def test_t_is_stratified_and_each_token_is_masked_with_probability_t_whatever_the_others_are():
    t, is_masked = draw_masks(2000, 20, torch.Generator().manual_seed(0))
    assert (t.sort().values * 2000).ceil().tolist() == list(range(1, 2001))     # one in each slice
    for low in (0.0, 0.25, 0.5, 0.75):
        rows = (low < t) & (t <= low + 0.25)
        assert abs(is_masked[rows].float().mean() - t[rows].mean()) < 0.02
    both = (is_masked[:, 0] & is_masked[:, 1]).float().mean()       # E[t^2]
    assert float(both) == pytest.approx(1 / 3, abs=0.03)


# ----------------------------------------------------------------------------------------------
# the network

@pytest.mark.parametrize("changed", [0, 5])
def test_every_position_sees_the_tokens_on_both_sides_of_it(model, changed):
    canvas = torch.tensor([[0, 1, MASK, 3, MASK, 5]])
    other = canvas.clone()
    other[0, changed] = 1 - canvas[0, changed] % 2
    difference = (model(canvas) - model(other)).nan_to_num().abs().amax(-1)[0]
    assert (difference > 1e-3).all()


def test_rotated_queries_and_keys_know_only_how_far_apart_they_are(model):
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    queries, keys = (rotate(x.expand(16, 8), model.cos, model.sin) for x in (query, key))
    products = queries @ keys.T                                             # (16, 16)
    for distance in range(-15, 16):
        same = products.diagonal(distance)
        assert torch.allclose(same, same[0].expand_as(same), atol=1e-5)
    assert products[0].std() > 0.1      # and differ by it
    assert queries[0].equal(query)


def test_mask_has_no_probability_and_everything_else_stays_finite(model):
    logits = model(torch.randint(6, (20, 8)))
    others = [token for token in range(6) if token != MASK]
    assert (logits[..., MASK] == -torch.inf).all() and logits[..., others].isfinite().all()
    p = logits.softmax(-1)
    assert (p[..., MASK] == 0).all() and torch.special.entr(p).sum(-1).isfinite().all()


def test_the_forbidden_logit_leaves_every_gradient_finite(model):
    completion = torch.tensor([[0, 5, EOS], [1, 3, 0]])
    diffusion_loss(model, completion, completion, torch.ones(2), torch.ones(2, 3).bool()).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_every_block_of_a_fresh_network_is_the_identity():
    fresh, x = MaskedDiffusionLM(tiny_model().config), torch.randn(2, 3, 16)
    for block in fresh.blocks:
        assert block(x, fresh.cos[:3], fresh.sin[:3]).equal(x)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("length", [1, 5, 12])
def test_the_wanted_positions_are_those_of_the_whole_in_value_and_gradient(model, share, length):
    generator = torch.Generator().manual_seed(length)
    canvas = torch.randint(6, (9, length), generator=generator)
    wanted = torch.rand(9, length, generator=generator) < share
    weight = torch.rand(9, length, 6, generator=generator)[wanted]
    weight[..., MASK] = 0       # its logit is -inf

    def gradient(logits):
        model.zero_grad()
        (logits.nan_to_num(neginf=0) * weight).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    few, whole = model(canvas, wanted), model(canvas)[wanted]
    assert few.shape == (wanted.sum(), 6) and torch.allclose(few, whole, atol=1e-5)
    found, expected = gradient(few), gradient(whole)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert (expected.norm() > 1e-3) == bool(wanted.any())


def test_the_last_layer_is_computed_only_where_it_is_wanted(model):
    shapes = []
    for block in model.blocks:
        block.ff_out.register_forward_hook(lambda module, args, out: shapes.append(out.shape))
    wanted = torch.zeros(3, 7).bool()
    wanted[0, 2] = wanted[2, 5] = wanted[2, 6] = True
    model(torch.zeros(3, 7).long(), wanted)
    assert shapes == [(3, 7, 16), (3, 16)]


def test_a_canvas_longer_than_the_model_is_refused_with_both_lengths(model):
    assert model(torch.zeros(1, 16).long()).shape == (1, 16, 6)
    with pytest.raises(ValueError, match="17.*16"):
        model(torch.zeros(1, 17).long())


# ----------------------------------------------------------------------------------------------
# a network from saved weights

def test_saved_weights_make_the_same_network_ready_to_run(model):
    again = from_weights(model.config, model.state_dict())
    canvas = torch.randint(6, (3, 12))
    assert again(canvas).equal(model(canvas)) and not again.training


@pytest.mark.parametrize("config, weights", [
    *[(changes, {}) for changes in (
        dict(n_layer=0), dict(n_layer=1), dict(n_layer=10**9), dict(n_head=3), dict(n_embd=10**6),
        dict(n_hidden=25), dict(vocab_size=10**12), dict(max_length=2**40), dict(norm_eps=0.0),
        dict(norm_eps=math.nan))],
    ({}, {"ln_f.bias": torch.zeros(16)}), ({}, {"wte.weight": torch.ones(1)}),
    ({}, {"wte.weight": torch.ones(16, 6)}), (dict(n_layer=3), {})], ids=str)
def test_weights_of_another_config_are_refused_before_any_memory_is_taken(model, config, weights):
    with pytest.raises(ValueError):
        from_weights(replace(model.config, **config), {**model.state_dict(), **weights})


# ----------------------------------------------------------------------------------------------
# each distinct row once, in pieces that fit the memory

@pytest.mark.parametrize("n_rows, length, n_tokens", [
    (1, 1, 1), (300, 4, 2), (500, 12, 3), (200, 39, 1000), (0, 4, 5)])
def test_distinct_is_unique_in_another_order(n_rows, length, n_tokens):
    generator = torch.Generator().manual_seed(n_rows)
    rows = torch.randint(n_tokens, (n_rows, length), generator=generator)
    found, which = distinct(rows)
    assert found[which].equal(rows)
    assert len(found) == len(set(map(tuple, rows.tolist())))


def test_rows_that_differ_are_told_apart_even_if_their_hashes_are_equal(monkeypatch):
    rows = torch.tensor([[0, 1], [1, 0], [0, 1], [2, 2]])
    monkeypatch.setattr(torch, "randint", lambda high, size, generator: torch.ones(size).long())
    found, which = distinct(rows)       # a hash is now a row's sum
    assert found[which].equal(rows) and len(found) == 3


@pytest.mark.parametrize("budget", [1, 2 * 16 * 7, 3 * 2 * 16 * 7 + 1, 10**9])
@pytest.mark.parametrize("n_vocab, width", [(6, 2 * 16 * 7), (10**4, 5 * 10**4)])
def test_chunks_hold_every_row_once_and_no_more_than_the_budget(model, budget, n_vocab, width):
    model.config = replace(model.config, vocab_size=n_vocab)    # 2 layers of 16
    rows, wanted = torch.arange(70).view(10, 7), torch.zeros(10, 7).bool()
    wanted[3, :5] = wanted[4, 6] = True     # the logits of 5 positions, at most
    pieces = list(chunks(model, rows, wanted, budget=budget))
    assert torch.cat([row for row, _ in pieces]).equal(rows)
    assert torch.cat([some for _, some in pieces]).equal(wanted)
    most = max(len(row) for row, _ in pieces)
    assert most == min(10, max(1, budget // width))
