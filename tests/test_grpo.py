"""Advantages, likelihood and loss: python -m pytest tests/test_grpo.py"""
import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from grpo import advantages, grpo_loss, log_probs
from model import BUDGET
from sample import Decoder, generate, text_length
from tests.test_model import EOS, MASK, tiny_model, watch

L = 5


@pytest.fixture
def model():
    return tiny_model()


def plain_log_probs(model, prompt, completion, rank, temperature=1.0):
    """The oracle: one forward for every committed position. (B, L), 0 where never committed, and
    where given (rank -1)."""
    out = torch.zeros(completion.shape)
    length = completion.shape[1]
    for b, i in itertools.product(range(len(prompt)), range(length)):
        if 0 <= rank[b, i] < length:
            visible = torch.where(rank[b] < rank[b, i], completion[b], model.config.mask_id)
            logits = model(torch.cat([prompt[b], visible])[None])[0, i - length]
            out[b, i] = (logits / temperature).log_softmax(-1)[completion[b, i]]
    return out


def plain_loss(model, prompt, completion, rank, advantage):
    logp = plain_log_probs(model, prompt, completion, rank)
    return -(advantage[:, None] * logp).sum() / (rank < rank.shape[1]).sum()


def gather(pieces):
    """The pieces of log_probs as one (B, L); nan where there is no term."""
    out = torch.full((6, L), torch.nan)
    for row, position, logp in pieces:
        assert out[row, position].isnan().all(), "a term came twice"
        out[row, position] = logp.detach()
    return out


def gradient(model, losses):
    """-> the sum of the losses and its gradient, as one vector, by a backward on each."""
    model.zero_grad(set_to_none=False)
    total = 0.0
    for loss in losses:
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_same_loss(model, losses, other):
    (a, gradient_a), (b, gradient_b) = gradient(model, losses), gradient(model, other)
    assert a == pytest.approx(b, rel=1e-5, abs=1e-7)
    assert (gradient_a - gradient_b).norm() <= 1e-5 * gradient_b.norm()
    assert gradient_b.norm() > 1e-3     # there was something to compare


def batch(rank):
    """-> prompt, completion, rank: six rollouts of two prompts; 0 and 1 are equal, others share a
    prefix. rank: a name from RANKS."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.tensor([[0, 1]] * 3 + [[EOS, 3]] * 3)
    completion = torch.tensor([[0, 1, 3, 5, 0], [0, 1, 3, 5, 0], [0, 1, 5, EOS, EOS],
                               [1, 0, 3, 5, EOS], [1, 1, 0, EOS, EOS], [EOS, EOS, EOS, EOS, EOS]])
    order = torch.arange(L).expand(6, L)
    shuffled = torch.rand(6, L, generator=generator).argsort(1)
    parallel = torch.randint(3, (6, L), generator=generator)
    length = text_length(completion, EOS)[:, None]
    never = torch.rand(6, L, generator=generator) < 0.3
    return prompt, completion, {
        "left to right": order, "shuffled": shuffled, "parallel": parallel,
        "all at once": torch.zeros_like(order), "ragged": order.masked_fill(order >= length, L),
        "some never": shuffled.masked_fill(never, L),
        "parallel, some never": parallel.masked_fill(never, L)}[rank]


RANKS = ("left to right", "shuffled", "parallel", "all at once", "ragged", "some never",
         "parallel, some never")
ADVANTAGE = torch.tensor([0.7, -0.2, -0.5, 1.1, 0.0, -1.1])


# ----------------------------------------------------------------------------------------------
# advantages

def test_advantages_by_hand():
    std = math.sqrt(1 / 3)      # (.25 * 4) / (4 - 1): the unbiased one
    expected = [0.5 / (std + 1e-4), -0.5 / (std + 1e-4), -0.5 / (std + 1e-4), 0.5 / (std + 1e-4)]
    assert advantages(torch.tensor([[1.0, 0, 0, 1]]))[0].tolist() == pytest.approx(expected)
    one_of_four = advantages(torch.tensor([[0.0, 1, 0, 0]]))[0].tolist()
    assert one_of_four == pytest.approx([-0.49990, 1.49970, -0.49990, -0.49990], abs=1e-5)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float64])
def test_rewards_may_be_of_any_kind_of_number(kind):
    rewards = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    assert advantages(rewards.to(kind)).equal(advantages(rewards))


def test_each_group_is_judged_by_itself():
    rewards = torch.tensor([[1.0, 0.0, 0.0], [5.0, 5.0, 8.0]])
    apart = torch.cat([advantages(rewards[:1]), advantages(rewards[1:])])
    assert advantages(rewards).equal(apart) and apart[0, 0] > 0 > apart[1, 0]


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_group_that_agrees_has_exactly_zero_advantage(reward, size):
    # The mean of several 0.1s need not be 0.1: without care 1e-9 / 1e-4 is left, not 0.
    assert (advantages(torch.full((2, size), reward)) == 0).all()


# ----------------------------------------------------------------------------------------------
# the likelihood

@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("chunk", [1, 500, BUDGET])
def test_log_probs_are_those_of_the_plain_loop_each_committed_position_once(model, rank, chunk):
    prompt, completion, rank = batch(rank)
    found = gather(log_probs(model, prompt, completion, rank, budget=chunk))
    assert found.isnan().equal(rank == L)
    expected = plain_log_probs(model, prompt, completion, rank)
    assert torch.allclose(found.nan_to_num(), expected, atol=1e-5)


def test_tokens_that_were_never_committed_have_no_influence(model):
    prompt, completion, rank = batch("ragged")
    other = torch.where(rank == L, 1 - completion % 2, completion)
    assert not other.equal(completion)
    a, b = (gradient(model, grpo_loss(model, prompt, y, rank, ADVANTAGE))
            for y in (completion, other))
    assert a[0] == b[0] and a[1].equal(b[1])


def test_a_distinct_state_is_run_once(model):
    canvases = watch(model)
    prompt, completion, rank = batch("left to right")

    def n_rows(rows):
        canvases.clear()
        list(log_probs(model, prompt[rows], completion[rows], rank[rows]))
        return len(torch.cat(canvases))
    assert n_rows([0]) == 5
    assert n_rows([0, 1]) == 5              # two equal rollouts cost one
    assert n_rows([0, 2]) == 5 + 2          # 0 1 is shared: states of 0, 1 and 2 tokens
    assert n_rows([0, 3]) == 5 + 5          # the same states after another prompt are others
    rank = torch.zeros_like(rank)
    assert n_rows([0, 1, 2]) == 1           # all at once: one empty canvas


# ----------------------------------------------------------------------------------------------
# the loss

@pytest.mark.parametrize("rank", RANKS)
def test_the_loss_is_that_of_the_plain_loop_in_value_and_gradient(model, rank):
    args = batch(rank) + (ADVANTAGE,)
    assert_same_loss(model, grpo_loss(model, *args), [plain_loss(model, *args)])


@pytest.mark.parametrize("budget", [1, 700, BUDGET])
def test_the_size_of_the_chunks_changes_nothing(model, budget):
    args = batch("ragged") + (ADVANTAGE,)
    pieces = list(grpo_loss(model, *args, budget=budget))
    assert (len(pieces) > 1) == (budget < BUDGET)
    assert_same_loss(model, pieces, [plain_loss(model, *args)])


def test_a_root_whose_advantages_sum_to_zero_still_moves_its_tokens(model):
    prompt, completion, rank = batch("left to right")
    prompt, completion = prompt[[0, 0]], torch.tensor([[0] * L, [1] * L])
    only_first = torch.tensor([[0] + [L] * (L - 1)] * 2)    # siblings that part at the first token
    args = prompt, completion, only_first, torch.tensor([1.0, -1.0])
    assert_same_loss(model, grpo_loss(model, *args), [plain_loss(model, *args)])
    p = model(torch.tensor([[0, 1] + [MASK] * L]))[0, 2].log_softmax(-1)
    assert_same_loss(model, grpo_loss(model, *args), [(p[1] - p[0]) / 2])


def test_tokens_of_rows_without_advantage_count_in_the_denominator(model):
    prompt, completion, rank = batch("ragged")      # 5 5 4 5 4 1 tokens

    def total(rows, advantage):
        args = prompt[rows], completion[rows], rank[rows], torch.tensor(advantage)
        return sum(loss.item() for loss in grpo_loss(model, *args))
    alone = total([0], [1.0])
    assert total([0, 2, 4], [1.0, 0.0, 0.0]) == pytest.approx(alone * 5 / (5 + 4 + 4))


def test_a_batch_without_signal_yields_nothing_and_runs_nothing(model):
    canvases = watch(model)
    assert list(grpo_loss(model, *batch("ragged"), torch.zeros(6))) == [] == canvases


def random_batch(seed):
    """Rollouts in groups that share prefixes, with ranks of every kind: from left to right, with
    ties, shuffled; some positions never committed. Rewards of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, *size):
        return torch.randint(high, size, generator=generator)
    n_groups, size, length = 1 + int(draw(3, 1)), 2 + int(draw(7, 1)), 1 + int(draw(8, 1))
    prompt = torch.tensor([[0, 1], [1, 1], [3, 0]])[:n_groups].repeat_interleave(size, 0)
    completion = draw(2, len(prompt), length)
    completion = torch.where(draw(8, *completion.shape) == 0, EOS, completion)
    kind = seed % 4
    rank = (torch.arange(length).expand_as(completion) if kind == 0
            else draw(1 + length // 2, *completion.shape) if kind == 1
            else torch.rand(completion.shape, generator=generator).argsort(1) if kind == 2
            else torch.rand(length, generator=generator).argsort().expand_as(completion))
    rank = rank.masked_fill(draw(6, *completion.shape) == 0, length)
    reward = draw(2, n_groups, size).float()
    budget = [1, 500, BUDGET][int(draw(3, 1))]
    return prompt, completion, rank, reward, budget


@pytest.mark.parametrize("seed", range(24))
def test_over_random_ranks_lengths_rewards_and_budgets_the_gradient_is_the_plain_loops(seed):
    model = tiny_model()
    prompt, completion, rank, reward, budget = random_batch(seed)
    args = prompt, completion, rank, advantages(reward).flatten()
    plain_loss(model, *args).backward()     # every gradient is there, if only as zeros
    value, found = gradient(model, grpo_loss(model, *args, budget=budget))
    expected_value, expected = gradient(model, [plain_loss(model, *args)])
    assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-6)
    assert (found - expected).norm() <= 1e-5 * expected.norm() + 1e-6


def exact_weights(prompt, completion, rank, reward):
    """(row, position) -> the sum, in fractions, of reward - mean over the committed tokens that
    are the same token in the same state."""
    n_groups, size = reward.shape
    exact = [[Fraction(r) for r in group] for group in reward.tolist()]
    centered = [r - sum(group) / size for group in exact for r in group]
    sums, key = Counter(), {}
    for b, i in (rank < completion.shape[1]).nonzero().tolist():
        state = torch.where(rank[b] < rank[b, i], completion[b], MASK)
        key[b, i] = (*prompt[b].tolist(), *state.tolist(), i, int(completion[b, i]))
        sums[key[b, i]] += centered[b]
    return {at: sums[k] for at, k in key.items()}


@pytest.mark.parametrize("fine", [False, True], ids=["0 or 1", "any reward"])
@pytest.mark.parametrize("seed", range(24))
def test_only_terms_whose_exact_weight_is_zero_are_dropped_and_all_of_them(seed, fine):
    prompt, completion, rank, reward, _ = random_batch(seed)
    if fine:    # partial credit, in steps that floats can't hold
        reward = (reward + torch.arange(reward.numel()).view_as(reward) % 3) / 10
    with torch.no_grad():
        pieces = log_probs(tiny_model(), prompt, completion, rank,
                           advantages(reward).flatten()[:, None].expand(rank.shape))
        kept = {(int(b), int(i)) for row, position, _ in pieces for b, i in zip(row, position)}
    exact = exact_weights(prompt, completion, rank, reward)
    if fine:    # the float 0.1 + 0.2 is no fraction of ten: what is within rounding of 0 is 0
        assert kept == {at for at, weight in exact.items() if abs(weight) > 1e-5}
    else:
        assert kept == {at for at, weight in exact.items() if weight}


def test_while_siblings_agree_nothing_is_run_and_where_they_part_each_token_counts(model):
    canvases = watch(model)
    prompt = torch.tensor([[0, 1]] * 4)
    completion = torch.tensor([[0, 1, 0], [0, 1, 1], [0, 3, 0], [0, 3, 1]])
    rank = torch.arange(3).expand(4, 3)
    # As many right as wrong go on with 0, with 0 1 and with 0 3: only the last token is judged.
    for _ in grpo_loss(model, prompt, completion, rank, torch.tensor([1.0, -1.0, 1.0, -1.0])):
        pass
    assert sorted(torch.cat(canvases).tolist()) == [[0, 1, 0, 1, MASK], [0, 1, 0, 3, MASK]]


def test_on_policy_the_clipped_ratio_of_the_paper_has_the_same_gradient(model):
    args = batch("ragged")
    logp, A = plain_log_probs(model, *args), ADVANTAGE[:, None]
    ratio = (logp - logp.detach()).exp()        # pi / pi_old: 1, but not its gradient
    clipped = torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)
    _, expected = gradient(model, [-(clipped * (args[2] < L)).sum() / (args[2] < L).sum()])
    _, found = gradient(model, grpo_loss(model, *args, ADVANTAGE))
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_two_armed_problem_is_learned_in_a_few_steps():
    model, prompts = tiny_model(sharpness=1.0), torch.tensor([[0, 3]] * 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def p_good():
        with torch.no_grad():
            return float(model(torch.tensor([[0, 3, MASK, MASK]]))[0, -2].softmax(-1)[1])
    before = p_good()
    torch.manual_seed(0)
    for _ in range(12):
        sample = generate(model, prompts, 2, Decoder(temperature=1.0))
        advantage = advantages((sample.tokens[:, 0] == 1).float()[None])[0]     # arm 1 pays
        optimizer.zero_grad()
        for loss in grpo_loss(model, prompts, sample.tokens, sample.rank, advantage):
            loss.backward()
        optimizer.step()
    assert before < 0.2 and p_good() > 0.9
