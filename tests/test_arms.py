"""Each rival asks the likelihood for what its paper asks, and the law of LCR's places is a law.

    python -m pytest tests/test_arms.py
"""
import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from experiments import arms
from experiments.arms import ARMS, Asked, Options, Variant, advantages_by, choose
from grpo import Recipe, grpo, log_probs
from model import BUDGET, diffusion_loss, draw_masks
from sample import Decoder, generate, text_length
from tests.test_grpo import FirstToken, L, assert_same_loss, batch, gradient, plain_log_probs
from tests.test_model import EOS, MASK, tiny_model, watch
from tests.test_sample import assert_frequencies, outcomes, small_model

PROMPT = torch.tensor([[1, 0]])


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def small():
    return small_model()


def make(name, n_updates=1, block_length=None, temperature=1.0, **options):
    """The arm of this name."""
    decoder = Decoder(ARMS[name].order, ARMS[name].select, None, block_length, temperature)
    return Variant(decoder, name, n_updates, ARMS[name], Options(**options))


def roll_out(arm, model, n, length=4):
    """-> the rollouts of one prompt, and what the arm asks about them."""
    torch.manual_seed(0)
    prompt = PROMPT.expand(n, -1)
    sample = generate(model, prompt, length, arm.decoder)
    return sample, arm.terms(model, prompt, sample, torch.Generator().manual_seed(2))


def everything(tokens, rank, prompt=PROMPT):
    """Asked of these completions, every term once."""
    tokens, rank = torch.as_tensor(tokens), torch.as_tensor(rank)
    scale = ((0 <= rank) & (rank < rank.shape[1])).float()
    return Asked(prompt.expand(len(tokens), -1), tokens, rank, scale)


# ----------------------------------------------------------------------------------------------
# LCR with the law of its choice of place

def law(model, canvas, length, block_length=None, temperature=1.0):
    """(i, v) -> P(LCR commits v at i) in this state, from the sum over what all others draw."""
    logits = model(torch.tensor([canvas]))[0, -length:]
    p, q = logits.softmax(-1), (logits / temperature).softmax(-1)
    masked = [i for i in range(length) if canvas[i - length] == model.config.mask_id]
    size = block_length or length
    masked = [i for i in masked if i // size == masked[0] // size]
    found = {}
    for i, v in itertools.product(masked, range(model.config.mask_id)):
        less = [q[j][p[j] < p[i, v]].sum() for j in masked if j != i]
        found[i, v] = q[i, v] * math.prod(less)
    return found


def laws(model, sample, length, **how):
    """Row and probability of every commit of a sample, each state by itself."""
    for row, i in (sample.rank < length).nonzero().tolist():
        seen = torch.where(sample.rank[row] < sample.rank[row, i], sample.tokens[row], 3)
        events = law(model, [1, 0, *seen.tolist()], length, **how)
        assert sum(events.values()).item() == pytest.approx(1, abs=1e-5)
        yield row, events[i, int(sample.tokens[row, i])]


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_over_all_that_it_can_write_lcr_exact_sums_to_one_and_is_the_frequency(temperature):
    model, N = small_model(1.0), 20_000
    arm = make("lcr_exact", temperature=temperature)
    sample, _ = roll_out(arm, model, N, 2)
    every = [(t, r) for t in itertools.product(range(3), repeat=2) for r in ((0, 1), (1, 0))]
    every = [(t, r) for t, r in every if t[0] != 2 or r == (1, 0)]
    every.append(((2, 2), (0, 2)))      # end-of-text first, at the left: nothing else is written
    tokens, rank = zip(*every)
    p = arm.log_prob_table(model, everything(tokens, rank)).sum(1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    assert_frequencies(Counter(outcomes(sample)), {leaf: N * float(q) for leaf, q in zip(every, p)})
    without = make("lcr", temperature=temperature)
    assert without.log_prob_table(model, everything(tokens, rank)).sum(1).exp().sum() > 1.2


@pytest.mark.parametrize("budget", [1, 500, BUDGET])
@pytest.mark.parametrize("block_length", [None, 2, 3])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
def test_lcr_exact_is_the_law_of_every_commit_in_value_and_gradient(
        small, block_length, budget, temperature):
    how = {"block_length": block_length, "temperature": temperature}
    arm, weight = make("lcr_exact", **how), torch.linspace(-1, 1, 6)
    sample, asked = roll_out(arm, small, 6, 5)
    pieces = [(weight[row] * logp).sum()
              for row, _, logp in arm.log_probs(small, asked, asked.scale, budget)]
    plain = sum(weight[row] * p.log() for row, p in laws(small, sample, 5, **how))
    value, found = gradient(small, pieces)
    expected_value, expected = gradient(small, [plain])
    assert value == pytest.approx(expected_value, rel=1e-3)
    assert (found - expected).norm() < 1e-3 * expected.norm()
    _, without = gradient(small, make("lcr", **how).losses(small, asked, weight))
    assert (found + without * asked.scale.sum()).norm() > 0.1 * found.norm()    # the law matters


def test_a_rival_that_is_equally_likely_up_to_rounding_counts_as_less_likely(small):
    small.register_forward_hook(        # end-of-text, a little likelier from row to row
        lambda module, args, logits: torch.tensor([0.0, 0.0, 2.0, -torch.inf]).expand(logits.shape)
        + torch.arange(len(logits))[:, None] * torch.tensor([0, 0, 5e-6, 0]))
    asked = everything([[2, 2], [2, 2]], [[1, 0], [0, 2]])
    p = math.exp(2) / (2 + math.exp(2))
    found = make("lcr_exact").log_prob_table(small, asked)
    assert torch.allclose(found, asked.scale * math.log(p), atol=1e-4)


# ----------------------------------------------------------------------------------------------
# what each rival asks

@pytest.mark.parametrize("name", ["left_to_right", "random", "lcr", "tpp"])
def test_where_the_rollouts_own_rank_is_asked_for_it_is_every_commit_as_the_sampler_drew_it(
        small, name):
    sample, asked = roll_out(make(name), small, 60)
    assert asked.rank.equal(sample.rank) and asked.scale.equal((sample.rank < 4).float())
    assert torch.allclose(make(name).log_prob_table(small, asked), sample.logp, atol=1e-5)


def test_fork_asks_about_the_steps_at_which_nothing_was_sure_as_forkgrpo_does():
    model = tiny_model(seed=2, vocab_size=4, mask_id=3, eos_id=2)
    sample, asked = roll_out(make("fork"), model, 100, 5)
    for row, i in (sample.rank < 5).nonzero().tolist():
        rank = sample.rank[row]
        seen = torch.where(rank < rank[i], sample.tokens[row], 3)
        with torch.no_grad():
            p = model(torch.cat([PROMPT[0], seen])[None])[0, -5:].softmax(-1)
        nothing_sure = bool((p.amax(-1)[seen == 3] < 0.9).all())
        assert bool(asked.scale[row, i]) == nothing_sure
        if nothing_sure:        # then it was the leftmost one, and alone
            assert i == int((seen == 3).int().argmax()) and int((rank == rank[i]).sum()) == 1
    assert 0 < asked.scale.sum() < (sample.rank < 5).sum()


def test_mismatch_asks_left_to_right_up_to_the_first_end_of_text():
    tokens = torch.tensor([[0, 1, EOS, 3, 0], [EOS, 1, 1, 1, 1], [0, 1, 0, 1, 0]])
    rank = torch.tensor([[4, 3, 0, 2, 1], [0, 5, 5, 1, 5], [0, 4, 2, 1, 3]])
    sample = SimpleNamespace(tokens=tokens, rank=rank)
    asked = arms.left_to_right(PROMPT, sample, text_length(tokens, EOS), MASK, None)
    assert asked.rank.tolist() == [[0, 1, 2, 5, 5], [0, 5, 5, 5, 5], [0, 1, 2, 3, 4]]
    assert asked.scale.equal((asked.rank < 5).float())


@pytest.fixture
def texts():
    """-> prompt, rollouts, their lengths, and where (B, L) they are text."""
    prompt, tokens, rank = batch("shuffled")
    length = text_length(tokens, EOS)
    inside = torch.arange(L) < length[:, None]
    return prompt, SimpleNamespace(tokens=tokens, rank=rank), length, inside


def test_one_step_asks_for_every_token_of_the_text_after_nothing_and_masks_some_of_the_prompt(
        model, texts):
    prompt, sample, length, inside = texts
    asked = arms.one_step(prompt, sample, length, MASK, None, prompt_mask=0.0)
    assert asked.prompt.equal(prompt) and asked.scale.equal(inside.float())
    assert asked.rank.equal(torch.where(inside, 0, L))
    canvases = watch(model)
    list(log_probs(model, asked.prompt, asked.tokens, asked.rank))
    assert len(torch.cat(canvases)) == 2        # a state a prompt: the empty canvas
    many, generator = torch.ones(6, 4000), torch.Generator().manual_seed(0)
    masked = arms.one_step(many, sample, length, MASK, generator).prompt == MASK
    assert masked.float().mean().item() == pytest.approx(0.15, abs=0.01)    # 4 sigma
    assert len(masked.unique(dim=0)) == 6       # each row its own


def test_coupled_has_each_token_of_the_text_once_in_one_half_or_the_other_given_the_rest(texts):
    prompt, sample, length, inside = texts
    asked = arms.coupled(prompt, sample, length, MASK, torch.Generator().manual_seed(5))
    t, hidden = draw_masks(6, L, torch.Generator().manual_seed(5))
    assert asked.prompt.equal(prompt.repeat(2, 1))
    assert asked.tokens.equal(sample.tokens.repeat(2, 1))
    for half, here, share in ((slice(6), hidden, t), (slice(6, 12), ~hidden, 1 - t)):
        assert asked.rank[half].equal(torch.where(inside, torch.where(here, 0, -1), L))
        expected = torch.where(inside & here, 1 / (2 * share[:, None]), 0)
        assert torch.allclose(asked.scale[half], expected)


def test_in_expectation_coupled_is_the_log_probability_averaged_over_all_orders(small):
    arm, N = make("elbo"), 20_000
    orders = torch.tensor(list(itertools.permutations(range(3))))
    tokens = torch.tensor([[0, 1, 1]])
    average = arm.log_prob_table(small, everything(tokens.expand(6, -1), orders)).sum(1).mean()
    sample = SimpleNamespace(tokens=tokens.expand(N, -1), rank=torch.zeros(N, 3).long())
    asked = arms.coupled(PROMPT.expand(N, -1), sample, torch.full((N,), 3), 3,
                         torch.Generator().manual_seed(0))
    each = (asked.scale * arm.log_prob_table(small, asked)).view(2, N, 3).sum((0, 2))
    error = each.std() / N ** 0.5
    assert error < 0.1 and abs(each.mean() - average) < 4 * error


# ----------------------------------------------------------------------------------------------
# every rival in the loop

def test_a_rival_is_one_entry_and_trains(monkeypatch, run):
    monkeypatch.setitem(ARMS, "narrow", arms.Rival("margin", "k", arms.left_to_right, "a new one"))
    arm = arms.arm_of(arms.parse_flags(["narrow"])[1])
    model = tiny_model(sharpness=1.0)
    before = model.wte.weight.detach().clone()
    list(grpo(model, FirstToken(), arm, Recipe(steps=2, prompts=3, rollouts=8), run))
    assert arm.decoder.order == "margin" and not model.wte.weight.equal(before)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "rejection"])
def test_at_ratio_one_the_gradient_is_that_of_the_single_update_in_every_arm(small, name):
    A = torch.linspace(-1, 1.3, 24)
    _, asked = roll_out(make(name), small, 24)
    _, one = gradient(small, make(name).losses(small, asked, A))
    several = make(name, n_updates=2)
    _, asked = roll_out(several, small, 24)
    _, many = gradient(small, several.losses(small, asked, A))
    assert (one - many).norm() < 1e-5 * one.norm() and one.norm() > 1e-4
    assert several.own_measures() == {"clipped": 0}


def test_rejection_is_pretrainings_loss_on_the_right_rollouts_and_no_others(model):
    prompt, tokens, _ = batch("ragged")
    sample = SimpleNamespace(tokens=tokens, rank=tokens)
    arm = arms.arm_of(arms.parse_flags(["rejection"])[1])
    asked = arm.terms(model, prompt, sample, torch.Generator().manual_seed(3))
    advantage = arm.advantages(torch.tensor([[1.0, 1, 1], [0, 0.5, 0]])).flatten()
    right, masks = [0, 1, 2, 4], draw_masks(4, L, torch.Generator().manual_seed(3))
    expected = diffusion_loss(model, prompt[right], tokens[right], *masks)
    assert_same_loss(model, arm.losses(model, asked, advantage), expected)
    assert list(arm.losses(model, asked, torch.zeros(6))) == []


# ----------------------------------------------------------------------------------------------
# advantages, norms, positions, the clip

@pytest.mark.parametrize("kind, expected", [
    ("std", [0.75 / (0.5 + 1e-4)] + [-0.25 / (0.5 + 1e-4)] * 3),    # std: unbiased
    ("none", [0.75, -0.25, -0.25, -0.25]),
    ("leave_one_out", [1.0, -1 / 3, -1 / 3, -1 / 3])])              # 1 - 0, 0 - 1/3
def test_advantages_by_hand_in_three_kinds(kind, expected):
    found = advantages_by(kind, torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]))
    assert found[0].tolist() == pytest.approx(expected) and (found[1] == 0).all()


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
@pytest.mark.parametrize("name, positions", [
    ("left_to_right", "all"), ("elbo", "all"), ("fork", "all"), ("left_to_right", "top_entropy")])
def test_the_norms_by_hand_each_term_that_counts_counts_once(small, name, positions, norm):
    arm = make(name, loss_norm=norm, positions=positions)
    _, asked = roll_out(arm, small, 30)
    counts = (asked.scale > 0).sum(1).view(-1, 30).sum(0)       # the terms of each text
    n = {"token": counts.sum(), "sequence": 30 * counts.clamp(min=1),
         "constant": torch.tensor(30 * 4)}[norm]
    A = torch.linspace(-1, 1.3, 30)
    weight = (A / n).repeat(len(asked.tokens) // 30)[:, None]
    logp = plain_log_probs(small, asked.prompt, asked.tokens, asked.rank)
    assert_same_loss(small, arm.losses(small, asked, A), -(asked.scale * logp * weight).sum())


def test_top_entropy_keeps_the_most_uncertain_terms_of_the_batch_with_their_weights(texts):
    prompt, sample, length, inside = texts
    options = Options(positions="top_entropy", fraction=0.25)
    entropy = torch.rand(6, L, generator=torch.Generator().manual_seed(1)) + ~inside
    halves = arms.coupled(prompt, sample, length, MASK, torch.Generator().manual_seed(5)).scale
    for scale in (inside.float(), halves):
        chosen = choose(options, entropy, scale, None)
        kept = (chosen.view(-1, 6, L) > 0).any(0)
        assert int(kept.sum()) == round(0.25 * int(inside.sum())) and not (kept & ~inside).any()
        assert entropy[kept].min() > entropy[inside & ~kept].max()
        assert chosen.equal(scale * kept.repeat(len(scale) // 6, 1))
        assert choose(Options(fraction=1.0), entropy, scale, None).equal(scale)


def test_a_random_quarter_is_random():
    options, generator = Options(positions="random"), torch.Generator().manual_seed(0)
    share = sum(choose(options, torch.zeros(6, L), torch.ones(6, L), generator)
                for _ in range(2000)) / 2000
    assert share.sum().item() == pytest.approx(round(0.25 * 30))
    assert (share - round(0.25 * 30) / 30).abs().max() < 0.05       # 5 sigma


@pytest.fixture
def one_term(model):
    """Asked: one term a row, with log pi_old such that these are the ratios."""
    prompt, tokens, rank = batch("left to right")
    asked = everything(tokens, torch.where(torch.arange(L) < 1, 0, L).expand(6, -1), prompt)
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 0.6, 1.1])
    asked.old = make("left_to_right").log_prob_table(model, asked) - ratio.log()[:, None]
    return asked


def test_the_clip_by_hand_above_inside_and_below_its_bounds(model, one_term):
    arm = make("left_to_right", clip_low=0.2, clip_high=0.3)
    arm.clipped = []
    A = torch.tensor([1.0, -1.0, 1.0, -1.0, -2.0, 2.0])
    value, found = gradient(model, arm.losses(model, one_term, A))
    #   1.5 up: clipped to 1.3; 1.5 down: -1.5; .5 up: .5; .5 and .6 down: clipped to .8; 1.1 free
    assert value == pytest.approx(-(1.3 - 1.5 + 0.5 - 0.8 - 1.6 + 2.2) / 6, rel=1e-5)
    assert arm.own_measures() == {"clipped": pytest.approx(3 / 6)}
    moves = torch.tensor([0, -1.5, 0.5, 0, 0, 2.2])                     # A * ratio where it is free
    logp = plain_log_probs(model, one_term.prompt, one_term.tokens, one_term.rank)[:, 0]
    _, expected = gradient(model, [-(moves * logp).sum() / 6])
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_with_a_clip_equal_terms_of_opposite_advantage_are_not_left_out(model):
    prompt, tokens, rank = (x[[0, 0]] for x in batch("left to right"))
    asked, arm = everything(tokens, rank, prompt), make("left_to_right")
    A = torch.tensor([1.0, -1.0])
    assert list(arm.losses(model, asked, A)) == []                      # linear: they cancel
    asked.old, arm.clipped = arm.log_prob_table(model, asked) - 0.5, []     # ratio 1.65
    _, found = gradient(model, arm.losses(model, asked, A))
    logp = plain_log_probs(model, prompt, tokens, rank)
    _, expected = gradient(model, [math.exp(0.5) * logp[1].sum() / 10])     # the first is clipped
    assert (found - expected).norm() < 1e-5 * expected.norm() and expected.norm() > 1e-3
    assert list(arm.losses(model, asked, torch.zeros(2))) == []         # no advantage
