"""The network and its loss: python -m pytest tests/test_model.py"""
import itertools
import math
import os
import pickle
from types import SimpleNamespace

import pytest
import torch

import grpo
import model as model_py
from model import (MaskedDiffusionLM, ModelConfig, chunks, diffusion_loss, distinct, draw_masks,
                   load, load_checkpoint, save, save_checkpoint, write_whole)

torch.set_num_threads(1)    # tensors this small only wait for a second thread
EOS, MASK = 4, 2    # in the middle of the vocabulary: nothing may rely on their being last


def tiny_model(seed=4, vocab_size=6, mask_id=MASK, eos_id=EOS, sharpness=3.0):
    """Every weight random (a fresh network's blocks start as the identity), logits of std about
    `sharpness`, so that the distributions are far from uniform and differ between positions. With
    the default seed, texts end at many different places."""
    generator = torch.Generator().manual_seed(seed)
    model = MaskedDiffusionLM(ModelConfig(vocab_size, mask_id, eos_id, max_length=12, n_layer=2,
                                          n_head=2, n_embd=16, n_hidden=24))
    with torch.no_grad():
        for name, p in model.named_parameters():
            std = (sharpness if name == "ff_out.weight" else 1.5) * p.shape[-1] ** -0.5
            p.normal_(0 if p.ndim == 2 else 1, std if p.ndim == 2 else 0.1, generator=generator)
    return model


def watch(model):
    """A list that collects the canvases the model is run on, one tensor a call."""
    canvases = []
    model.register_forward_hook(lambda module, args, logits: canvases.append(args[0].clone()))
    return canvases


def fixed_model(probabilities):
    """Stands in for a network: these probabilities (L, V) at the completion, whatever it reads."""
    def model(canvas, wanted):
        logits = torch.zeros(*canvas.shape, probabilities.shape[1])
        logits[:, -len(probabilities):] = probabilities.log()
        return logits[wanted]
    model.config = SimpleNamespace(mask_id=probabilities.shape[1] - 1)
    return model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tiny_model()


# ----------------------------------------------------------------------------------------------
# the network

@pytest.mark.parametrize("changed", [0, 5])
def test_every_position_sees_the_tokens_on_both_sides_of_it(model, changed):
    canvas = torch.tensor([[0, 1, MASK, 3, MASK, 5]])
    other = canvas.clone()
    other[0, changed] = 1 - canvas[0, changed] % 2
    difference = (model(canvas) - model(other)).nan_to_num().abs().amax(-1)[0]
    assert (difference > 1e-3).all()


def test_the_order_of_the_tokens_matters_not_only_which_there_are(model):
    logits = model(torch.tensor([[0, 1, 3, MASK], [1, 0, 3, MASK]]))[:, 3]
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_mask_has_no_probability_and_everything_else_stays_finite(model):
    logits = model(torch.randint(6, (20, 8)))
    assert (logits[..., MASK] == -torch.inf).all()
    others = [v for v in range(6) if v != MASK]
    assert logits[..., others].isfinite().all()
    logp = logits.log_softmax(-1)
    assert logp[..., others].isfinite().all() and (logp.exp()[..., MASK] == 0).all()
    assert torch.special.entr(logp.exp()).sum(-1).isfinite().all()     # not 0 * -inf


def test_the_forbidden_logit_leaves_every_gradient_finite(model):
    completion = torch.tensor([[0, 5, EOS], [1, 3, 0]])
    diffusion_loss(model, completion, completion, torch.ones(2), torch.ones(2, 3).bool()).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_every_block_of_a_fresh_network_is_the_identity():
    torch.manual_seed(0)
    fresh, x = MaskedDiffusionLM(tiny_model().config), torch.randn(2, 3, 16)
    for block in fresh.blocks:
        assert block(x, fresh.cos[:3], fresh.sin[:3]).equal(x)


def test_a_row_does_not_notice_what_else_is_in_its_batch(model):
    canvases = torch.tensor([[EOS, EOS, 0, 1, MASK, MASK],      # a left-padded prompt
                             [EOS, 5, 3, 1, MASK, 0],
                             [0, 1, 3, 5, MASK, MASK],
                             [3, 3, 1, 0, EOS, EOS]])
    together = model(canvases)
    for row, logits in zip(canvases, together):
        assert torch.allclose(model(row[None])[0], logits, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("length", [1, 5, 12])
def test_the_wanted_rows_are_those_of_the_whole_in_value_and_gradient(model, share, length):
    generator = torch.Generator().manual_seed(length)
    canvas = torch.randint(6, (9, length), generator=generator)
    wanted = torch.rand(9, length, generator=generator) < share
    weight = torch.rand(9, length, 6, generator=generator)
    weight[..., MASK] = 0       # its logit is -inf
    found = []
    for few in (True, False):
        model.zero_grad()
        logits = model(canvas, wanted) if few else model(canvas)[wanted]
        (logits.nan_to_num(neginf=0) * weight[wanted]).sum().backward()
        found.append((logits, torch.cat([p.grad.flatten() for p in model.parameters()])))
    (a, gradient_a), (b, gradient_b) = found
    assert a.shape == (wanted.sum(), 6) and torch.allclose(a, b, atol=1e-5)
    assert (gradient_a - gradient_b).norm() <= 1e-5 * gradient_b.norm()
    assert (gradient_b.norm() > 1e-3) == bool(wanted.any())


def test_the_last_layer_is_computed_only_where_it_is_wanted(model):
    shapes = []
    for block in model.blocks:
        block.ff_out.register_forward_hook(lambda module, args, out: shapes.append(out.shape))
    wanted = torch.zeros(3, 7).bool()
    wanted[0, 2] = wanted[2, 5] = wanted[2, 6] = True
    model(torch.zeros(3, 7).long(), wanted)
    assert shapes == [(3, 7, 16), (3, 16)]


def test_a_canvas_longer_than_the_model_is_refused_with_both_lengths(model):
    assert model(torch.zeros(1, 12).long()).shape == (1, 12, 6)
    with pytest.raises(ValueError, match="13.*12"):
        model(torch.zeros(1, 13).long())


# ----------------------------------------------------------------------------------------------
# each distinct row once, in pieces that fit the memory

@pytest.mark.parametrize("n_rows, length, n_tokens", [
    (1, 1, 1), (300, 4, 2), (500, 12, 3), (200, 39, 1000), (0, 4, 5)])
def test_distinct_is_unique_in_another_order(n_rows, length, n_tokens):
    rows = torch.randint(n_tokens, (n_rows, length),
                         generator=torch.Generator().manual_seed(n_rows))
    found, which = distinct(rows)
    assert found[which].equal(rows)
    assert len(found) == len(set(map(tuple, rows.tolist())))


def test_rows_that_differ_are_told_apart_even_if_their_sums_are_equal(monkeypatch):
    rows = torch.tensor([[0, 1], [1, 0], [0, 1], [2, 2]])
    monkeypatch.setattr(torch, "randint", lambda high, size, generator: torch.ones(size).long())
    found, which = distinct(rows)
    assert found[which].equal(rows) and len(found) == 3


@pytest.mark.parametrize("budget", [1, 2 * 16 * 7, 3 * 2 * 16 * 7 + 1, 10**9])
def test_chunks_hold_every_row_once_and_no_more_than_the_budget(model, budget):
    rows, others = torch.arange(70).view(10, 7), torch.arange(10)
    pieces = list(chunks(model, rows, others, budget=budget))       # 2 layers of 16
    assert torch.cat([a for a, _ in pieces]).equal(rows)
    assert torch.cat([b for _, b in pieces]).equal(others)
    most = max(len(a) for a, _ in pieces)
    assert most == min(10, max(1, budget // (2 * 16 * 7)))


# ----------------------------------------------------------------------------------------------
# the loss

def test_only_completion_tokens_are_ever_masked(model):
    canvases = watch(model)
    prompt, completion = torch.tensor([[0, 1], [EOS, 3]]), torch.tensor([[5, 1, 0], [3, 0, EOS]])
    is_masked = torch.tensor([[True, False, True], [True, True, True]])
    diffusion_loss(model, prompt, completion, torch.ones(2), is_masked)
    assert canvases[0].tolist() == [[0, 1, MASK, 1, MASK], [EOS, 3, MASK, MASK, MASK]]


def test_diffusion_loss_by_hand():
    stub = fixed_model(torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]))
    prompt, completion = torch.tensor([[0], [1]]), torch.tensor([[0, 1], [1, 0]])
    #   row 0: p = 1/2 hidden, 3/4 visible; t = 1/2      row 1: p = 1/2 and 1/4, both hidden; t = 1
    loss = diffusion_loss(stub, prompt, completion, torch.tensor([0.5, 1.0]),
                          torch.tensor([[True, False], [True, True]]))
    assert float(loss) == pytest.approx((math.log(2) / 0.5 + math.log(2) + math.log(4)) / 4)
    nothing = torch.zeros(2, 2).bool()
    assert float(diffusion_loss(stub, prompt, completion, torch.ones(2), nothing)) == 0


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


def test_t_is_stratified_one_draw_in_each_slice():
    t, _ = draw_masks(10, 1, torch.Generator().manual_seed(0))
    assert (t.sort().values * 10).ceil().tolist() == list(range(1, 11))


@pytest.mark.parametrize("n_rows", [1, 3, 64, 1000])
@pytest.mark.parametrize("u", [0.0, 1 - 2 ** -24])      # the smallest and largest that rand returns
def test_t_is_never_zero_and_never_above_one(monkeypatch, n_rows, u):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, u))
    t, _ = draw_masks(n_rows, 2)
    assert 0 < t.min() and t.max() <= 1     # 1/t is a weight: at t = 0 the loss is nan


def test_each_token_is_masked_with_probability_t():
    t, is_masked = draw_masks(2000, 20, torch.Generator().manual_seed(0))
    for low in (0.0, 0.25, 0.5, 0.75):
        rows = (low < t) & (t <= low + 0.25)
        assert abs(is_masked[rows].float().mean() - t[rows].mean()) < 0.02
    both = (is_masked[:, 0] & is_masked[:, 1]).float().mean()       # independent given t: E[t^2]
    assert float(both) == pytest.approx(1 / 3, abs=0.03)


def test_a_few_steps_on_one_batch_halve_its_loss():
    torch.manual_seed(0)
    fresh = MaskedDiffusionLM(tiny_model().config)
    prompt, completion = torch.randint(2, (8, 2)), torch.randint(2, (8, 4)) + 3
    t, is_masked = draw_masks(8, 4)
    optimizer, losses = torch.optim.Adam(fresh.parameters(), lr=0.02), []
    for _ in range(25):
        loss = diffusion_loss(fresh, prompt, completion, t, is_masked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


# ----------------------------------------------------------------------------------------------
# checkpoints

@pytest.fixture
def saved(tmp_path, model):
    """A good checkpoint: its path, and what is in it."""
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, {"name": "toy", "skip": 0.1}, seed=7)
    return path, load(path)


def test_a_checkpoint_restores_the_same_network_exactly(saved, model):
    loaded, task, info = load_checkpoint(saved[0])
    canvas = torch.randint(6, (3, 12))
    assert torch.equal(loaded(canvas), model(canvas))
    assert (loaded.config, task, info) == (model.config, {"name": "toy", "skip": 0.1}, {"seed": 7})
    assert not loaded.training


def test_the_bytes_of_a_checkpoint_do_not_depend_on_its_file_name(saved, model):
    other = saved[0].parent / "another name.ckpt"
    save_checkpoint(other, model, {"name": "toy", "skip": 0.1}, seed=7)
    assert other.read_bytes() == saved[0].read_bytes()


class Code:
    """Unpickling this would make a folder: what a hostile checkpoint could do."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def refuse(path):
    with pytest.raises(ValueError, match=path.name) as error:
        load_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(saved):
    path, content = saved[0], saved[0].read_bytes()
    for data in (b"", b"hello", b"PK\x03\x04", content[:100], content[:len(content) // 2],
                 content[:-1], pickle.dumps({"format": "pickle"}, protocol=2)):
        path.write_bytes(data)
        refuse(path)
    for foreign in ([1, 2], {}, {"model": {}}, torch.ones(2)):
        for how in (torch.save, lambda value, path: save(path, value)):
            how(foreign, path)
            refuse(path)


def test_code_inside_a_checkpoint_is_refused_and_never_run(tmp_path):
    path, folder = tmp_path / "model.pt", str(tmp_path / "made by the pickle")
    path.write_bytes(pickle.dumps(Code(folder), protocol=2))
    refuse(path)
    torch.save({"task": Code(folder)}, path)
    refuse(path)
    assert not os.path.exists(folder)


def test_a_checkpoint_of_another_version_is_refused_as_such(saved):
    path = saved[0]
    path.write_bytes(path.read_bytes().replace(b"version 2", b"version 3"))
    assert "version 2" in refuse(path)      # the one that it should be


def test_a_checkpoint_with_damaged_contents_is_refused_in_one_line(saved):
    path, good = saved
    config, weights = good["config"], good["model"]
    for bad in ({k: v for k, v in good.items() if k != "task"},
                good | {"config": None}, good | {"config": {"n_layer": 2}},
                good | {"config": config | {"new_field": 1}},
                good | {"config": config | {"n_head": 0}},
                good | {"config": config | {"vocab_size": 7}},
                good | {"model": None}, good | {"model": {}},
                good | {"model": weights | {"wte.weight": torch.ones(1)}}):
        save(path, bad)
        refuse(path)


def test_a_missing_checkpoint_and_a_folder_are_errors_of_the_system(tmp_path):
    for path in (tmp_path / "missing.pt", tmp_path):
        with pytest.raises(OSError):
            load_checkpoint(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    write_whole(path, b"old")

    def disk_is_full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", disk_is_full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["log.csv"]
    monkeypatch.undo()
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["log.csv"]


def test_writing_to_a_folder_or_into_a_missing_one_fails_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "missing" / "file"):
        with pytest.raises(OSError):
            write_whole(path, b"new")
    assert os.listdir(tmp_path) == ["folder"]
