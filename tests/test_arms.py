"""What each arm asks of the likelihood, and GRPO's options: python -m pytest tests/test_arms.py"""
import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from grpo import ARMS, advantages, asked, choose, grpo_loss, log_prob_table, log_probs
from model import BUDGET, draw_masks
from sample import Decoder, generate, text_length
from tests.test_grpo import ADVANTAGE, L, assert_same_loss, batch, gradient, plain_log_probs
from tests.test_model import EOS, MASK, tiny_model, watch
from tests.test_sample import assert_frequencies

PROMPT = torch.tensor([[1, 0]])


@pytest.fixture
def model():
    return tiny_model()


def small_model(sharpness=1.5):
    """Vocabulary 0, 1, end-of-text 2, MASK 3."""
    return tiny_model(seed=3, vocab_size=4, mask_id=3, eos_id=2, sharpness=sharpness)


def written(tokens, rank):
    return SimpleNamespace(tokens=tokens, rank=rank)


def rollouts(arm, model, n=400, length=4, block_length=None, temperature=1.0, seed=0):
    order, select, _, _ = ARMS[arm]
    torch.manual_seed(seed)
    return generate(model, PROMPT.expand(n, -1), length,
                    Decoder(order, select, None, block_length, temperature))


def asks(arm, model, sample, **how):
    length = text_length(sample.tokens, model.config.eos_id)
    return asked(ARMS[arm][2], PROMPT.expand(len(length), -1), sample, length,
                 model.config.mask_id, **how)


# ----------------------------------------------------------------------------------------------
# what each arm asks

EXACT = ["justgrpo", "random", "top_probability", "fork"]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("block_length", [None, 2])
@pytest.mark.parametrize("arm", EXACT + ["confidence"])
def test_where_the_rank_is_the_rollouts_the_log_probs_are_those_of_the_sampler(arm, block_length,
                                                                               temperature):
    model = small_model()
    sample = rollouts(arm, model, 60, 4, block_length if arm != "justgrpo" else None, temperature)
    prompt, tokens, rank, scale = asks(arm, model, sample)
    assert rank.equal(sample.rank)
    unsure = sample.top < 0.9 if arm == "fork" else True
    assert scale.equal(((rank < 4) & unsure).float()) and scale.any()
    found = log_prob_table(model, prompt, tokens, rank, temperature=temperature)
    if temperature == 1:        # the sampler records the untempered ones
        assert torch.allclose(found, sample.logp, atol=1e-5)
    assert torch.allclose(found, plain_log_probs(model, prompt, tokens, rank, temperature),
                          atol=1e-5)


def leaves(model, length, place):
    """Every (tokens, rank) that a sampler can write whose next position is place(p, masked), a
    function of the state, with its probability, by following every draw."""
    mask_id, eos_id = model.config.mask_id, model.config.eos_id

    def follow(tokens, rank, step):
        first_end = tokens.index(eos_id) if eos_id in tokens else length
        masked = [i for i in range(length) if tokens[i] == mask_id]
        if not [i for i in masked if i < first_end]:
            yield tuple(eos_id if t == mask_id else t for t in tokens), tuple(rank)
            return
        with torch.no_grad():
            p = model(torch.cat([PROMPT, torch.tensor([tokens])], 1))[0, -length:].softmax(-1)
        i = place(p, masked)
        for v in range(mask_id):
            yield from follow([*tokens[:i], v, *tokens[i + 1:]],
                              [*rank[:i], step, *rank[i + 1:]], step + 1)
    return list(follow([mask_id] * length, [length] * length, 0))


def test_fork_trains_on_the_steps_at_which_nothing_was_sure_as_forkgrpo_does():
    model = tiny_model(seed=2, vocab_size=4, mask_id=3, eos_id=2)
    sample = rollouts("fork", model, 200, 5)
    prompt, tokens, rank, scale = asks("fork", model, sample)
    kept = 0
    for b, i in (rank < 5).nonzero().tolist():
        seen = torch.where(rank[b] < rank[b, i], tokens[b], 3)
        with torch.no_grad():
            p = model(torch.cat([prompt[b], seen])[None])[0, -5:].softmax(-1)
        masked = seen == 3
        fallback = bool((p.amax(-1)[masked] < 0.9).all())
        assert bool(scale[b, i]) == fallback
        if fallback:        # then it was the leftmost one, and alone
            assert i == int(masked.int().argmax()) and int((rank[b] == rank[b, i]).sum()) == 1
        kept += fallback
    assert 0 < kept < int((rank < 5).sum())


@pytest.mark.parametrize("seed", range(3))
def test_top_probability_is_exact_the_probabilities_of_all_that_it_can_write_sum_to_one(seed):
    model = tiny_model(seed=seed, vocab_size=4, mask_id=3, eos_id=2, sharpness=1.5)
    found = leaves(model, 3, lambda p, masked: max(masked, key=lambda i: (float(p[i].max()), -i)))
    tokens, rank = (torch.tensor(x) for x in zip(*found))
    table = log_prob_table(model, PROMPT.expand(len(tokens), -1), tokens, rank)
    p = table.sum(1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    sample = rollouts("top_probability", model, 4000, 3)
    counts = Counter(zip(map(tuple, sample.tokens.tolist()), map(tuple, sample.rank.tolist())))
    assert_frequencies(counts, {leaf: 4000 * float(q) for leaf, q in zip(found, p)})


def test_mismatch_asks_left_to_right_up_to_the_first_end_of_text(model):
    tokens = torch.tensor([[0, 1, EOS, 3, 0], [EOS, 1, 1, 1, 1], [0, 1, 0, 1, 0]])
    rank = torch.tensor([[4, 3, 0, 2, 1], [0, 5, 5, 1, 5], [0, 4, 2, 1, 3]])
    _, _, order, scale = asked("left_to_right", PROMPT.expand(3, -1), written(tokens, rank),
                               text_length(tokens, EOS), MASK)
    assert order.tolist() == [[0, 1, 2, 5, 5], [0, 5, 5, 5, 5], [0, 1, 2, 3, 4]]
    assert scale.equal((order < 5).float())


def test_one_step_asks_for_every_token_of_the_text_after_nothing_and_masks_some_of_the_prompt(
        model):
    prompt, tokens, rank = batch("shuffled")
    length = text_length(tokens, EOS)
    generator = torch.Generator().manual_seed(0)
    wide = torch.full((500, 40), 1)
    many = written(tokens.repeat(100, 1)[:500], rank.repeat(100, 1)[:500])
    masked = asked("one_step", wide, many, length.repeat(100)[:500], MASK,
                   generator=generator)[0] == MASK
    assert masked.float().mean().item() == pytest.approx(0.15, abs=0.01)    # 4 sigma of 20,000
    assert masked.float().mean(0).max() < 0.25 and len(masked.unique(dim=0)) == 500
    same, _, order, scale = asked("one_step", prompt, written(tokens, rank), length, MASK, 0.0)
    assert same.equal(prompt)
    inside = torch.arange(L) < length[:, None]
    assert order.equal(torch.where(inside, 0, L)) and scale.equal(inside.float())
    canvases = watch(model)
    list(log_probs(model, prompt, tokens, order))
    assert len(torch.cat(canvases)) == 2        # a state a prompt: the empty canvas
    assert torch.allclose(log_prob_table(model, prompt, tokens, order),
                          plain_log_probs(model, prompt, tokens, order).detach(), atol=1e-5)


def test_coupled_has_each_token_of_the_text_once_in_one_half_or_the_other_given_the_rest():
    prompt, tokens, rank = batch("shuffled")
    length = text_length(tokens, EOS)
    inside = torch.arange(L) < length[:, None]
    twice, both, order, scale = asked("coupled", prompt, written(tokens, rank), length, MASK,
                                      generator=torch.Generator().manual_seed(5))
    t, hidden = draw_masks(6, L, torch.Generator().manual_seed(5))
    assert twice.equal(prompt.repeat(2, 1)) and both.equal(tokens.repeat(2, 1))
    assert set(order.unique().tolist()) == {-1, 0, L}
    for half, here, share in ((slice(6), hidden, t), (slice(6, 12), ~hidden, 1 - t)):
        assert order[half].equal(torch.where(inside, torch.where(here, 0, -1), L))
        expected = torch.where(inside & here, 1 / (2 * share[:, None]), 0)
        assert torch.allclose(scale[half], expected)
    assert ((scale > 0)[:6] ^ (scale > 0)[6:]).equal(inside)


def test_in_expectation_coupled_is_the_log_probability_averaged_over_all_orders():
    model, N = small_model(), 20_000
    tokens = torch.tensor([[0, 1, 1]])
    orders = torch.tensor(list(itertools.permutations(range(3))))
    every = log_prob_table(model, PROMPT.expand(6, -1), tokens.expand(6, -1), orders)
    average = every.sum(1).mean()
    prompt, both, order, scale = asked(
        "coupled", PROMPT.expand(N, -1), written(tokens.expand(N, -1), torch.zeros(N, 3).long()),
        torch.full((N,), 3), 3, generator=torch.Generator().manual_seed(0))
    each = (scale * log_prob_table(model, prompt, both, order)).view(2, N, 3).sum((0, 2))
    error = each.std() / N ** 0.5
    assert error < 0.1 and abs(each.mean() - average) < 4 * error


def test_given_tokens_are_visible_in_every_state_and_have_no_term(model):
    prompt, tokens, _ = batch("shuffled")
    rank = torch.tensor([[0, -1, 1, -1, 5], [-1, -1, -1, -1, 0], [5, 5, -1, 0, 0]])
    found = log_prob_table(model, prompt[:3], tokens[:3], rank)
    assert (found != 0).equal((rank >= 0) & (rank < L))
    expected = plain_log_probs(model, prompt[:3], tokens[:3], rank)
    assert torch.allclose(found, expected, atol=1e-5)


# ----------------------------------------------------------------------------------------------
# LCR with the law of its choice of place

def law(model, canvas, length, block_length=None, temperature=1.0):
    """(i, v) -> P(LCR commits v at i) in this state, from the sum over what all others draw."""
    with torch.no_grad():
        logits = model(torch.tensor([canvas]))[0, -length:]
    p, q = logits.softmax(-1).tolist(), (logits / temperature).softmax(-1).tolist()
    masked = [i for i in range(length) if canvas[i - length] == model.config.mask_id]
    size = block_length or length
    masked = [i for i in masked if i // size == masked[0] // size]
    words = range(model.config.mask_id)
    return {(i, v): q[i][v] * math.prod(sum(q[j][u] for u in words if p[j][u] < p[i][v])
                                        for j in masked if j != i) for i in masked for v in words}


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("block_length", [None, 2])
@pytest.mark.parametrize("seen", [(), (0,), (1, 2), (0, 1, 3)], ids=str)
def test_in_a_state_the_law_of_place_and_draw_sums_to_one(seen, block_length, temperature):
    model, length = small_model(1.0), 4
    events = [(i, v) for i in range(length) for v in range(3) if i not in seen]
    first = min(i for i, _ in events)
    if block_length:
        events = [(i, v) for i, v in events if i // block_length == first // block_length]
    tokens = torch.zeros(len(events), length, dtype=torch.long)
    rank = torch.full((len(events), length), length)
    rank[:, list(seen)] = -1        # given
    for n, (i, v) in enumerate(events):
        tokens[n, i], rank[n, i] = v, 0
    p = log_prob_table(model, PROMPT.expand(len(events), -1), tokens, rank, temperature=temperature,
                       lcr_block=block_length or length).sum(1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    canvas = [1, 0, *(0 if i in seen else 3 for i in range(length))]
    expected = law(model, canvas, length, block_length, temperature)
    assert dict(zip(events, p.tolist())) == pytest.approx(expected, abs=1e-6)


def test_over_all_that_it_can_write_confidence_exact_sums_to_one_and_is_the_frequency():
    model, N = small_model(1.0), 20_000
    sample = rollouts("confidence_exact", model, N, 2)
    outcomes = Counter(zip(map(tuple, sample.tokens.tolist()), map(tuple, sample.rank.tolist())))
    every = [(t, r) for t in itertools.product(range(3), repeat=2) for r in ((0, 1), (1, 0))]
    every = [(t, r) for t, r in every if t[r.index(0)] != 2 or r[0] == 1]
    every += [((2, 2), (0, 2))]         # end-of-text first, at the left: nothing else is written
    assert set(outcomes) <= set(every)
    tokens, rank = (torch.tensor(x) for x in zip(*every))
    p = log_prob_table(model, PROMPT.expand(len(every), -1), tokens, rank, lcr_block=2)
    p = p.sum(1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    assert_frequencies(outcomes, {e: N * float(q) for e, q in zip(every, p)})
    plain = log_prob_table(model, PROMPT.expand(len(every), -1), tokens, rank).sum(1).exp()
    assert plain.sum() > 1.2            # without the law, it is no distribution


@pytest.mark.parametrize("budget", [1, 500, BUDGET])
@pytest.mark.parametrize("block_length", [None, 2, 3])
def test_confidence_exact_is_the_law_of_every_commit_of_a_rollout(block_length, budget):
    model, length = small_model(), 5
    sample = rollouts("confidence_exact", model, 12, length, block_length)
    found = log_prob_table(model, PROMPT.expand(12, -1), sample.tokens, sample.rank, budget=budget,
                           lcr_block=block_length or length)
    for b, i in itertools.product(range(12), range(length)):
        if sample.rank[b, i] < length:
            seen = torch.where(sample.rank[b] < sample.rank[b, i], sample.tokens[b], 3).tolist()
            expected = law(model, [1, 0, *seen], length, block_length)
            assert found[b, i].exp().item() == pytest.approx(
                expected[i, int(sample.tokens[b, i])], rel=1e-3)


def test_the_law_is_differentiated():
    model = small_model()
    sample = rollouts("confidence_exact", model, 8, 3)
    args = PROMPT.expand(8, -1), sample.tokens, sample.rank
    A, n = torch.linspace(-1, 1, 8), (sample.rank < 3).sum()
    _, found = gradient(model, grpo_loss(model, *args, A, lcr_block=3))

    def plain():        # the same law from logits, every state by itself
        total = 0.0
        for b, i in (sample.rank < 3).nonzero().tolist():
            seen = torch.where(sample.rank[b] < sample.rank[b, i], sample.tokens[b], 3)
            p = model(torch.cat([PROMPT[0], seen])[None])[0, -3:].softmax(-1)
            bar, rivals = p[i, sample.tokens[b, i]], [j for j in range(3) if seen[j] == 3 != i]
            log_law = bar.log() + sum(p[j][p[j] < bar].sum().log() for j in rivals if j != i)
            total = total - A[b] * log_law / n
        return total
    _, expected = gradient(model, [plain()])
    assert (found - expected).norm() < 1e-4 * expected.norm()
    _, without = gradient(model, grpo_loss(model, *args, A))
    assert (found - without).norm() > 0.1 * found.norm()        # the law matters


def test_a_rival_that_is_equally_likely_up_to_rounding_does_not_count_as_an_impossible_event():
    model = small_model()
    model.register_forward_hook(        # padding: two places as sure as float32 can be, or nearly
        lambda m, args, logits: torch.tensor([0.0, 0.0, 30.0, -torch.inf]).expand(logits.shape)
        + torch.arange(len(logits))[:, None] * 1e-7)
    rank = torch.tensor([[1, 0], [0, 2]])
    p = log_prob_table(model, PROMPT.expand(2, -1), torch.tensor([[2, 2], [2, 2]]), rank,
                       lcr_block=2)
    assert p.abs().max() < 1e-5


# ----------------------------------------------------------------------------------------------
# advantages, norms, positions

def test_advantages_by_hand_in_three_kinds():
    rewards, std = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]), 0.5        # unbiased
    assert advantages(rewards)[0].tolist() == pytest.approx(
        [x / (std + 1e-4) for x in (0.75, -0.25, -0.25, -0.25)])
    assert advantages(rewards, "none")[0].tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert advantages(rewards, "leave_one_out")[0].tolist() == pytest.approx(
        [1.0, -1 / 3, -1 / 3, -1 / 3])      # 1 - 0, 0 - 1/3
    for kind in ("std", "none", "leave_one_out"):
        assert (advantages(rewards, kind)[1] == 0).all()


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
def test_the_norms_by_hand(model, norm):
    args = batch("ragged")      # 5 5 4 5 4 1 tokens
    n = torch.tensor([5.0, 5, 4, 5, 4, 1])
    weight = {"token": torch.full((6,), 1 / 24), "sequence": 1 / (6 * n),
              "constant": torch.full((6,), 1 / 30)}[norm]
    plain = -(plain_log_probs(model, *args).sum(1) * ADVANTAGE * weight).sum()
    assert_same_loss(model, grpo_loss(model, *args, ADVANTAGE, norm=norm), [plain])


@pytest.mark.parametrize("norm", ["token", "sequence", "constant"])
def test_the_norms_of_coupled_count_each_text_once(norm):
    model, sample = small_model(), rollouts("elbo", small_model(), 30)
    *what, scale = asks("elbo", model, sample, generator=torch.Generator().manual_seed(2))
    A, length = torch.linspace(-1, 1.3, 30), text_length(sample.tokens, 2).float()
    N = {"token": length.sum(), "sequence": 30 * length, "constant": torch.tensor(30.0 * 4)}[norm]
    logp = plain_log_probs(model, *what)
    plain = -(scale * logp * (A / N).repeat(2)[:, None]).sum()
    assert_same_loss(model, grpo_loss(model, *what, A, scale=scale, norm=norm), [plain])


def test_top_entropy_keeps_the_most_uncertain_terms_of_the_batch_and_nothing_else():
    _, _, rank = batch("some never")
    scale = (rank < L).float()
    entropy = torch.rand(rank.shape, generator=torch.Generator().manual_seed(1)) + (rank == L)
    n = round(0.25 * int(scale.sum()))
    kept = choose("top_entropy", 0.25, entropy, scale) > 0
    assert int(kept.sum()) == n and not (kept & (rank == L)).any()
    rest = (scale > 0) & ~kept
    assert entropy[kept].min() >= entropy[rest].max()
    everything = choose("top_entropy", 1.0, entropy, scale)
    assert everything.equal(scale)


def test_a_random_quarter_is_random():
    _, _, rank = batch("left to right")
    scale, generator = (rank < L).float(), torch.Generator().manual_seed(0)
    share = sum(choose("random", 0.25, None or torch.zeros(6, L), scale, generator) > 0
                for _ in range(4000)) / 4000
    assert share.sum().item() == pytest.approx(round(0.25 * 30))
    assert (share - round(0.25 * 30) / 30).abs().max() < 0.04       # 5 sigma


def test_of_coupled_a_chosen_token_keeps_its_weight_in_its_half():
    prompt, tokens, rank = batch("shuffled")
    length = text_length(tokens, EOS)
    *_, scale = asked("coupled", prompt, written(tokens, rank), length, MASK,
                      generator=torch.Generator().manual_seed(5))
    entropy = torch.arange(30.0).view(6, L)
    chosen = choose("top_entropy", 0.25, entropy, scale)
    kept = (chosen > 0)[:6] | (chosen > 0)[6:]
    inside = torch.arange(L) < length[:, None]
    assert int(kept.sum()) == round(0.25 * int(inside.sum()))
    assert entropy[kept].min() > entropy[inside & ~kept].max()
    assert chosen.equal(scale * kept.repeat(2, 1))


def test_the_loss_of_chosen_terms_is_divided_by_their_number_and_runs_no_other_state(model):
    prompt, tokens, rank = batch("left to right")
    scale = torch.zeros(6, L)
    scale[0, 3] = scale[3, 0] = scale[4, 2] = 1
    A = torch.tensor([1.0, 1, 1, 1, -1, 1])
    logp = plain_log_probs(model, prompt, tokens, rank)
    plain = -(logp[0, 3] + logp[3, 0] - logp[4, 2]) / 3
    canvases = watch(model)
    assert_same_loss(model, grpo_loss(model, prompt, tokens, rank, A, scale=scale), [plain])
    assert len(torch.cat(canvases)) == 3


# ----------------------------------------------------------------------------------------------
# several updates a batch: ratio and clip

@pytest.mark.parametrize("arm", [a for a in ARMS if a != "rejection"])
def test_at_ratio_one_the_gradient_is_that_of_the_single_update_in_every_arm(arm):
    model = small_model()
    sample = rollouts(arm, model, 24)
    *what, scale = asks(arm, model, sample, generator=torch.Generator().manual_seed(2))
    A = torch.linspace(-1, 1.3, 24)
    how = {"lcr_block": 4} if ARMS[arm][2] == "exact" else {}
    old = log_prob_table(model, *what, **how)
    clipped = []
    _, one = gradient(model, grpo_loss(model, *what, A, scale=scale, **how))
    _, many = gradient(model, grpo_loss(model, *what, A, scale=scale, old=old, clipped=clipped,
                                        **how))
    assert (one - many).norm() < 1e-5 * one.norm() and one.norm() > 1e-4
    assert not torch.cat(clipped).any()


def test_the_clip_by_hand(model):
    """Two-token texts whose ratios are set by `old`: above, inside and below the bounds, with
    advantages of both signs."""
    prompt, tokens, rank = batch("left to right")
    rank = torch.where(torch.arange(L) < 1, 0, L).expand(6, -1)         # one term a row
    new = log_prob_table(model, prompt, tokens, rank)[:, 0]
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1, 0.95])
    A = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0, -2.0])
    old = torch.zeros(6, L)
    old[:, 0] = new - ratio.log()
    clipped = []
    value, found = gradient(model, grpo_loss(model, prompt, tokens, rank, A, old=old,
                                             clip=(0.2, 0.3), clipped=clipped))
    #   1.5 up: clipped to 1.3; 1.5 down: -1.5; .5 up: .5; .5 down: clipped to -.8; the rest free
    assert value == pytest.approx(-(1.3 - 1.5 + 0.5 - 0.8 + 2.2 - 1.9) / 6, rel=1e-5)
    assert torch.cat(clipped).sum() == 2
    moves = torch.tensor([0, -1.5, 0.5, 0, 2.2, -1.9])                  # A * ratio where it is free
    logp = plain_log_probs(model, prompt, tokens, rank)[:, 0]
    _, expected = gradient(model, [-(moves * logp).sum() / 6])
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_with_a_clip_equal_terms_of_opposite_advantage_are_not_left_out(model):
    prompt, tokens, rank = batch("left to right")
    args = prompt[[0, 0]], tokens[[0, 0]], rank[[0, 0]], torch.tensor([1.0, -1.0])
    assert list(grpo_loss(model, *args)) == []                          # linear: they cancel
    old = log_prob_table(model, *args[:3]) - 0.5                        # ratio 1.65
    _, found = gradient(model, grpo_loss(model, *args, old=old, clipped=[]))
    logp = plain_log_probs(model, *args[:3])
    _, expected = gradient(model, [math.exp(0.5) * logp[1].sum() / 10])     # the first is clipped
    assert (found - expected).norm() < 1e-5 * expected.norm() and expected.norm() > 1e-3
    zero = torch.zeros(2)
    assert list(grpo_loss(model, *args[:3], zero, old=old, clipped=[])) == []   # no advantage
