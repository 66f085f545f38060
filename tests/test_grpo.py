"""The likelihood is exact, its gradient is the paper's, and the loop is the paper's loop.

    python -m pytest tests/test_grpo.py

Everything is compared with plain loops: one forward for each token, nothing shared or skipped.
"""
import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from data import Task
from grpo import Arm, Recipe, advantages, grpo, log_probs, policy_losses
from model import BUDGET
from sample import Decoder, generate, text_length
from tests.test_model import EOS, MASK, tiny_model, watch

L = 5
ADVANTAGE = torch.tensor([0.7, -0.2, -0.5, 1.1, 0.0, -1.1])
RANKS = ("left to right", "shuffled", "parallel", "all at once", "ragged", "some never",
         "parallel, some never")


@pytest.fixture
def model():
    return tiny_model()


def plain_log_probs(model, prompt, completion, rank, temperature=1.0):
    """The oracle: one forward for every committed position. (B, L), 0 where never committed, and
    where given (rank -1)."""
    out = torch.zeros(completion.shape)
    length = completion.shape[1]
    for row, position in itertools.product(range(len(prompt)), range(length)):
        if 0 <= rank[row, position] < length:
            seen = rank[row] < rank[row, position]
            canvas = torch.where(seen, completion[row], model.config.mask_id)
            logits = model(torch.cat([prompt[row], canvas])[None])[0, position - length]
            logp = (logits / temperature).log_softmax(-1)
            out[row, position] = logp[completion[row, position]]
    return out


def plain_loss(model, prompt, completion, rank, advantage, temperature=1.0):
    logp = plain_log_probs(model, prompt, completion, rank, temperature)
    return -(advantage[:, None] * logp).sum() / (rank < rank.shape[1]).sum()


def gradient(model, losses):
    """-> the sum of the losses and its gradient, as one vector, by a backward on each."""
    model.zero_grad(set_to_none=False)
    total = 0.0
    for loss in losses:
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_same_loss(model, losses, other):
    value, found = gradient(model, losses)
    expected_value, expected = gradient(model, [other])
    assert value == pytest.approx(expected_value, rel=1e-5, abs=1e-7)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert expected.norm() > 1e-3       # there was something to compare


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
        "parallel, some never": parallel.masked_fill(never, L),
        "some given": shuffled.masked_fill(never, -1)}[rank]


# ----------------------------------------------------------------------------------------------
# the likelihood, and the gradient

@pytest.mark.parametrize("rank", [*RANKS, "some given"])
@pytest.mark.parametrize("budget, T", [(1, 1.0), (500, 0.7), (BUDGET, 1.0), (BUDGET, 1.6)])
def test_log_probs_are_those_of_the_plain_loop_each_committed_position_once(model, rank, budget, T):
    prompt, completion, rank = batch(rank)
    found = torch.full((6, L), torch.nan)
    for row, position, logp in log_probs(model, prompt, completion, rank, None, T, budget):
        assert found[row, position].isnan().all(), "a term came twice"
        found[row, position] = logp.detach()
    assert found.isnan().equal((rank == L) | (rank == -1))
    expected = plain_log_probs(model, prompt, completion, rank, T)
    assert torch.allclose(found.nan_to_num(), expected, atol=1e-5)


def test_on_policy_the_clipped_ratio_of_the_paper_has_the_same_gradient(model):
    args = batch("ragged")
    logp, A = plain_log_probs(model, *args), ADVANTAGE[:, None]
    ratio = (logp - logp.detach()).exp()        # pi / pi_old: 1, but not its gradient
    clipped = torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A)
    _, expected = gradient(model, [-(clipped * (args[2] < L)).sum() / (args[2] < L).sum()])
    _, found = gradient(model, policy_losses(model, *args, ADVANTAGE))
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_root_whose_advantages_sum_to_zero_still_moves_its_tokens(model):
    prompt, completion = torch.tensor([[0, 1]] * 2), torch.tensor([[0] * L, [1] * L])
    only_first = torch.tensor([[0] + [L] * (L - 1)] * 2)    # siblings that part at the first token
    args = prompt, completion, only_first, torch.tensor([1.0, -1.0])
    assert_same_loss(model, policy_losses(model, *args), plain_loss(model, *args))
    p = model(torch.tensor([[0, 1] + [MASK] * L]))[0, 2].log_softmax(-1)
    assert_same_loss(model, policy_losses(model, *args), (p[1] - p[0]) / 2)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("budget", [1, 700, BUDGET])
def test_the_loss_is_that_of_the_plain_loop_in_value_and_gradient(model, rank, budget):
    args = *batch(rank), ADVANTAGE
    assert_same_loss(model, policy_losses(model, *args, budget=budget), plain_loss(model, *args))


@pytest.mark.parametrize("rows, rank, n_states", [
    ([0], "left to right", 5),
    ([0, 1], "left to right", 5),           # two equal rollouts cost one
    ([0, 2], "left to right", 5 + 2),       # 0 1 is shared: states of 0, 1 and 2 tokens
    ([0, 3], "left to right", 5 + 5),       # the same states after another prompt are others
    ([0, 1, 2], "all at once", 1)])         # one empty canvas
def test_a_distinct_state_is_run_once(model, rows, rank, n_states):
    canvases = watch(model)
    list(log_probs(model, *(x[rows] for x in batch(rank))))
    assert len(torch.cat(canvases)) == n_states


# ----------------------------------------------------------------------------------------------
# the same at random: groups that share prefixes, ties, positions never committed

def random_batch(seed):
    """-> prompt, completion, rank, rewards of 0 and 1, budget."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high, *size):
        return torch.randint(high, size, generator=generator)

    n_groups, size, length = 1 + int(draw(3, 1)), 2 + int(draw(7, 1)), 1 + int(draw(8, 1))
    prompt = torch.tensor([[0, 1], [1, 1], [3, 0]])[:n_groups].repeat_interleave(size, 0)
    completion = draw(2, len(prompt), length)
    completion = torch.where(draw(8, *completion.shape) == 0, EOS, completion)
    noise = torch.rand(completion.shape, generator=generator)
    rank = [torch.arange(length).expand_as(completion),             # from left to right
            draw(1 + length // 2, *completion.shape),               # with ties
            noise.argsort(1),                                       # an order for each row
            noise[0].argsort().expand_as(completion)][seed % 4]     # one for all
    rank = rank.masked_fill(draw(6, *completion.shape) == 0, length)
    return prompt, completion, rank, draw(2, n_groups, size).float(), [1, 500, BUDGET][seed % 3]


@pytest.mark.parametrize("seed", range(24))
def test_over_random_ranks_lengths_rewards_and_budgets_the_gradient_is_the_plain_loops(model, seed):
    prompt, completion, rank, reward, budget = random_batch(seed)
    args = prompt, completion, rank, advantages(reward).flatten()
    expected_value, expected = gradient(model, [plain_loss(model, *args)])
    value, found = gradient(model, policy_losses(model, *args, budget=budget))
    assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-6)
    assert (found - expected).norm() <= 1e-5 * expected.norm() + 1e-6


def exact_weights(prompt, completion, rank, reward):
    """(row, position) -> the sum, in fractions, of reward - mean over the committed tokens that
    are the same token in the same state."""
    exact = [[Fraction(r) for r in group] for group in reward.tolist()]
    centered = [r - sum(group) / len(group) for group in exact for r in group]
    sums, terms = Counter(), {}
    for row, position in (rank < completion.shape[1]).nonzero().tolist():
        state = torch.where(rank[row] < rank[row, position], completion[row], MASK)
        token = int(completion[row, position])
        terms[row, position] = (*prompt[row].tolist(), *state.tolist(), position, token)
        sums[terms[row, position]] += centered[row]
    return {place: sums[term] for place, term in terms.items()}


@pytest.mark.parametrize("fine", [False, True], ids=["0 or 1", "any reward"])
@pytest.mark.parametrize("seed", range(24))
def test_only_terms_whose_exact_weight_is_zero_are_dropped_and_all_of_them(model, seed, fine):
    prompt, completion, rank, reward, _ = random_batch(seed)
    if fine:    # partial credit, in steps that floats can't hold
        reward = (reward + torch.arange(reward.numel()).view_as(reward) % 3) / 10
    weight = advantages(reward).flatten()[:, None].expand(rank.shape)
    kept = set()
    for row, position, _ in log_probs(model, prompt, completion, rank, weight):
        kept.update(zip(row.tolist(), position.tolist()))
    # The float 0.1 + 0.2 is no fraction of ten: what is within rounding of 0 is 0.
    smallest = 1e-5 if fine else 0
    exact = exact_weights(prompt, completion, rank, reward)
    assert kept == {place for place, weight in exact.items() if abs(weight) > smallest}


# ----------------------------------------------------------------------------------------------
# advantages

STD = math.sqrt(1 / 3) + 1e-4       # of 1 0 0 1: (.25 * 4) / (4 - 1), the unbiased one


@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool], ids=str)
def test_advantages_by_hand_each_group_by_itself(kind):
    found = advantages(torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0]]).to(kind))
    expected = [[0.5 / STD, -0.5 / STD, -0.5 / STD, 0.5 / STD], [0] * 4,
                [-0.49990, 1.49970, -0.49990, -0.49990]]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_group_that_agrees_has_exactly_zero_advantage(reward, size):
    # The mean of several 0.1s need not be 0.1: without care 1e-9 / 1e-4 is left, not 0.
    assert (advantages(torch.full((2, size), reward)) == 0).all()


# ----------------------------------------------------------------------------------------------
# the loop

class FirstToken(Task):
    """Right is whoever begins with token 1, as long as problems have an answer."""
    mask_id, eos_id = MASK, EOS
    prompt_length, completion_length = 2, 3
    n_with_answer = 10**6

    def problem(self, split, index):
        return {"question": index % 3, "answer": "1" if index < self.n_with_answer else "none"}

    def prompts(self, questions):
        return torch.tensor([[0, question] for question in questions])

    def text(self, completion):
        return " ".join(str(int(token)) for token in completion)

    def is_right(self, text, answer):
        return text[0] == answer

    def reward(self, text, answer):
        return self.is_right(text, answer)      # a bool is a number


JUSTGRPO = Arm(Decoder("left_to_right", temperature=1.0))
CONFIDENCE = Arm(Decoder("confidence", temperature=1.0))


def plain_grpo(model, task, arm, recipe):
    """The oracle: the algorithm in grpo.py's docstring, with the plain loss. The sampler is the
    project's, and so is its noise."""
    optimizer = torch.optim.AdamW(model.parameters(), eps=recipe.adam_eps, weight_decay=0.0)
    generator = torch.Generator().manual_seed(recipe.seed)
    Q, G, length = recipe.prompts, recipe.rollouts, task.completion_length
    for step in range(recipe.steps):
        first = recipe.first_problem + step * Q
        problems = [task.problem("train", first + row // G) for row in range(Q * G)]
        prompt = task.prompts([problem["question"] for problem in problems])
        rollout = generate(model, prompt, length, arm.decoder,
                           lambda: torch.rand(Q * G, length, generator=generator))
        reward = torch.tensor([float(task.reward(task.text(tokens), problem["answer"]))
                               for tokens, problem in zip(rollout.tokens, problems)]).view(Q, G)
        spread = reward.std(1, keepdim=True) + 1e-4
        advantage = ((reward - reward.mean(1, keepdim=True)) / spread).flatten()
        assert advantage.any()
        for _ in range(arm.n_updates):
            optimizer.param_groups[0]["lr"] = recipe.lr * (1 - step / recipe.steps)
            optimizer.zero_grad()
            loss = plain_loss(model, prompt, rollout.tokens, rollout.rank, advantage,
                              arm.decoder.temperature)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


@pytest.mark.parametrize("arm", [
    JUSTGRPO, CONFIDENCE, Arm(Decoder("random", temperature=0.7), n_updates=2)],
    ids=lambda arm: arm.decoder.order)
def test_the_loop_with_any_order_is_the_plain_loop(run, arm):
    model, other = tiny_model(sharpness=0.5), tiny_model(sharpness=0.5)
    # A large eps: without it Adam makes whole steps even of gradients that are rounding.
    recipe = Recipe(steps=3, prompts=2, rollouts=6, lr=0.02, adam_eps=1e-3, first_problem=1)
    list(grpo(model, FirstToken(), arm, recipe, run))
    plain_grpo(other, FirstToken(), arm, recipe)
    for found, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("arm", [JUSTGRPO, CONFIDENCE], ids=lambda arm: arm.decoder.order)
def test_a_rewarded_token_becomes_likelier(run, arm):
    model = tiny_model(sharpness=1.0)

    def p_right():
        with torch.no_grad():
            return float(model(torch.tensor([[0, 1] + [MASK] * 3]))[0, 2].softmax(-1)[1])

    before = p_right()
    list(grpo(model, FirstToken(), arm, Recipe(steps=12, prompts=2, lr=0.03), run))
    assert before < 0.2 and p_right() > 0.8


def test_without_signal_no_weight_moves_not_even_by_adams_momentum(run):
    model, task = tiny_model(sharpness=1.0), FirstToken()
    task.n_with_answer = 3 * 4      # three steps of four prompts; then no rollout is right
    signals, weights = [], []
    for found in grpo(model, task, JUSTGRPO, Recipe(steps=5, prompts=4, rollouts=8, lr=0.01), run):
        signals.append(found.signal)
        weights.append(model.wte.weight.detach().clone())
    assert min(signals[:3]) > 0 and signals[3:] == [0, 0]
    assert not weights[1].equal(weights[2])
    assert weights[2].equal(weights[3]) and weights[2].equal(weights[4])


@pytest.mark.parametrize("final_lr, expected", [
    (0.0, [0.4, 0.3, 0.2, 0.1]), (0.4, [0.4, 0.4, 0.4, 0.4])])
def test_the_rate_falls_in_a_straight_line_to_the_final_one(model, run, final_lr, expected):
    rates = []
    recipe = Recipe(steps=4, prompts=1, rollouts=2, lr=0.4, final_lr=final_lr)
    for _ in grpo(model, FirstToken(), JUSTGRPO, recipe, run):
        rates.append(run.parts[1].param_groups[0]["lr"])
    assert rates == pytest.approx(expected)


class OnlyRight(Arm):
    """Learns from right rollouts only, and keeps the last rollouts."""

    def advantages(self, reward):
        return (reward - reward.mean(1, keepdim=True)).clamp(min=0)

    def terms(self, model, prompt, rollout, generator):
        self.tokens = rollout.tokens.tolist()
        return super().terms(model, prompt, rollout, generator)

    def own_measures(self):
        return {"tokens": self.tokens}


def test_a_measurement_by_hand_with_what_the_arm_itself_has_measured(model, run):
    torch.nn.init.zeros_(model.ff_out.weight)       # all five tokens but MASK are equally likely
    recipe = Recipe(steps=1, prompts=3, rollouts=2, seed=4, lr=1e-12)
    arm = OnlyRight(Decoder("left_to_right", temperature=1.0), n_updates=2)
    [found] = grpo(model, FirstToken(), arm, recipe, run)
    assert found.own == {"tokens": [
        [3, 0, 5], [1, EOS, EOS], [5, 3, 1], [5, 5, 1], [5, 5, 0], [EOS, EOS, EOS]]}
    assert (found.step, found.reward, found.signal) == pytest.approx((1, 1 / 6, 1 / 3))
    assert found.entropy == pytest.approx(math.log(5))
    assert found.length == (3 + 2 + 3 + 3 + 3 + 1) / 6
    assert found.loss == pytest.approx(0.5 * 2 * math.log(5) / 15)      # of the tokens 1, EOS
