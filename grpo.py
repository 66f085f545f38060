"""JustGRPO: plain GRPO on rollouts from left to right (arXiv 2601.15165, section 3).

    for every step
      roll out    G completions of each of Q prompts, left to right at T=1
      judge       reward 1 if the answer is right, else 0
                  A = (r - mean) / std within the prompt's group                    (eq. 7)
      recompute   log pi(o_k | q, o_<k, MASK...MASK) at every k                (eq. 5 and 6)
      push        one AdamW step on  - sum A log pi / number of tokens             (eq. 8)

The likelihood is exact in spite of the bidirectional attention: the policy that wrote
o_k saw o_<k and masks, and that is what the network is shown again. No ELBO, no
trajectory.

Departures from eq. 8: the sum is divided by the tokens of the batch, not of each text,
so that a token counts alike in long and short ones (DAPO, arXiv 2503.14476); left to
right, nothing counts after end-of-text; there is no KL term (the paper's weight is 0);
the learning rate falls to zero.

Any other order of rolling out is another `Arm`. experiments/arms.py has the rival
methods.

Legend: Q prompts x G rollouts = B rows, P prompt, L completion, V vocabulary, N terms,
U states.
"""
from dataclasses import dataclass

import torch

from data import is_finite
from model import BUDGET, chunks, distinct, has_float64, numbered
from sample import Decoder, Sample, generate, temper, text_length


@dataclass
class Recipe:
    steps: int = 30             # GRPO steps
    prompts: int = 16           # a step: Q
    rollouts: int = 8           # a prompt: G
    lr: float = 5e-5        # AdamW's learning rate falls from here, in a straight line,
    final_lr: float = 0.0       # to here
    adam_eps: float = 1e-8
    seed: int = 0               # of the rollouts' draws
    first_problem: int = 0      # of the training split


@dataclass
class Terms:
    """What is asked of the likelihood: each token whose rank is 0 ... L-1, after those
    whose rank is lower."""
    prompt: torch.Tensor        # (B, P)
    tokens: torch.Tensor        # (B, L)
    rank: torch.Tensor          # (B, L)


@dataclass
class Arm:
    """A way of rolling out, judged by the ranks that it has recorded itself.

    Arm(Decoder("left_to_right", temperature=1)) is JustGRPO. In confidence order (LCR)
    the draws choose the position, and this likelihood leaves that choice out. The
    rivals in experiments/arms.py have other methods in place of these.
    """
    decoder: Decoder
    name: str = "justgrpo"
    n_updates: int = 1          # AdamW steps a batch; more only with a ratio: see arms.py

    def __post_init__(self):
        # 1/T multiplies float32's rounding of a logit, some 1e-6, in log pi and its gradient.
        T = self.decoder.temperature
        if not 0.01 <= T <= 100:
            raise ValueError(f"rollouts at temperature {T}: it is from 0.01 to 100, beyond "
                             "which the gradient is rounding")

    def rewards(self, task, rollout, problems):
        return judge(task, rollout, problems)

    def advantages(self, reward):
        return advantages(reward)

    def terms(self, model, prompt, rollout, generator):
        return Terms(prompt, rollout.tokens, rollout.rank)

    def losses(self, model, terms, advantage):
        return policy_losses(model, terms.prompt, terms.tokens, terms.rank, advantage,
                             temperature=self.decoder.temperature)

    def own_measures(self):
        """What an arm has to say of the last step: columns of the log."""
        return {}


@dataclass
class Measurement:
    """Of one step; the numbers that catch mistakes."""
    step: int           # from 1
    loss: float         # near 0 on average: it is no measure of progress
    reward: float       # mean
    signal: float       # share of groups that do not agree: without, nothing is learned
    entropy: float      # of the written tokens, nats
    length: float       # of the texts, end-of-text included
    own: dict           # what the arm itself has measured


def grpo(model, task, arm, recipe, run):
    """Train the model in place; yields a Measurement after every step.

    run: a runs.Run, whose loop resumes, saves and stops.
    """
    device = next(model.parameters()).device
    Q, G, L = recipe.prompts, recipe.rollouts, task.completion_length
    optimizer = torch.optim.AdamW(model.parameters(), eps=recipe.adam_eps,
                                  weight_decay=0.0)
    generator = torch.Generator().manual_seed(recipe.seed)

    def noise():
        return torch.rand(Q * G, L, generator=generator)

    for step in run.loop(arm.name, recipe.steps, model, optimizer, generator):
        problems = task.problems("train", recipe.first_problem + step * Q, Q)
        problems = [problem for problem in problems for _ in range(G)]
        prompt = task.prompts([p["question"] for p in problems]).to(device)     # (B, P)
        rollout = generate(model, prompt, L, arm.decoder, noise)        # roll out
        reward = arm.rewards(task, rollout, problems)                   # judge,  (B,)
        advantage = arm.advantages(reward.view(Q, G)).to(device)        # eq. 7,  (Q, G)
        terms = arm.terms(model, prompt, rollout, generator)    # what of it is judged, and how
        left = 1 - step / recipe.steps
        optimizer.param_groups[0]["lr"] = recipe.lr * left + recipe.final_lr * (1 - left)
        total = 0.0
        # One update a batch: pi is still the pi_old that wrote it. So the ratio of eq. 8
        # is 1, no clip can act, and the ratio's gradient is that of log pi.
        for _ in range(arm.n_updates):
            for loss in arm.losses(model, terms, advantage.flatten()):  # eq. 5, 6 and 8
                loss.backward()         # push: a few canvases at a time, gradients add up
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()            # no signal, no gradient: then no weight moves
            optimizer.zero_grad()       # to None, not to 0, on which momentum would go on
        yield Measurement(
            step=step + 1, loss=total / arm.n_updates, reward=reward.mean().item(),
            signal=advantage.any(1).float().mean().item(),
            entropy=rollout.entropy[rollout.rank < L].mean().item(),
            length=text_length(rollout.tokens, task.eos_id).float().mean().item(),
            own=arm.own_measures())


def judge(task, rollout: Sample, problems, pay=None):
    """The reward of each row, (B,): pay(text, answer), which is the task's own reward.

    Raises FloatingPointError for what is no number, or too large for float32's squares.
    """
    pay = pay or task.reward
    rewards = []
    for tokens, problem in zip(rollout.tokens.cpu(), problems):
        text, answer = task.text(tokens), problem["answer"]
        reward = pay(text, answer)
        if not is_finite(reward) or abs(float(reward)) > 1e15:
            raise FloatingPointError(
                f"the reward of {text!r}, where {answer!r} is right, is {reward}")
        rewards.append(float(reward))
    return torch.tensor(rewards, dtype=torch.float32)


def advantages(reward):
    """(Q, G) -> (Q, G): above the siblings' mean, in standard deviations (eq. 7; GRPO,
    arXiv 2402.03300, section 4.1.2). Exactly 0 where a group agrees: it teaches
    nothing."""
    agree = (reward == reward[:, :1]).all(1, keepdim=True)
    reward = reward.float()
    centered = reward - reward.mean(1, keepdim=True)
    n_others = max(reward.shape[1] - 1, 1)
    std = (centered.square().sum(1, keepdim=True) / n_others).sqrt()
    return (centered * (1 / (std + 1e-4))).masked_fill(agree, 0.0)


def policy_losses(model, prompt, tokens, rank, advantage, temperature=1.0, budget=BUDGET):
    """Yields the loss, - sum_i A_i log p_i / N, in pieces to call backward on.

    advantage (B,), of each row. N is the number of tokens with a rank below L (eq. 8,
    with DAPO's denominator). Rows without advantage add nothing, but count in N, so
    that a batch with little signal weighs less in Adam's averages.
    """
    is_term = rank < rank.shape[1]                                              # (B, L)
    weight = is_term.float() * (advantage / is_term.sum())[:, None]             # (B, L)
    for row, position, logp in log_probs(model, prompt, tokens, rank, weight, temperature,
                                         budget):
        yield -(weight[row, position] * logp).sum()


def log_probs(model, prompt, tokens, rank, weight=None, temperature=1.0, budget=BUDGET):
    """Where this project computes the probability of a completion, for any order of
    filling it in:

        log pi(y | x, rank) = sum_i log p( y_i | x, { y_j : rank_j < rank_i }, MASK elsewhere )

    prompt (B, P), tokens and rank (B, L). With ranks 0, 1, 2, ... this is eq. 6 of
    JustGRPO. It is the sampler's policy wherever the draws do not choose the position.
    Rank L is "never committed": no term, MASK in every state; rank -1 is "given": no
    term, never MASK.

    Yields pieces (row (n,), position (n,), log p (n,)) that together hold every term
    once: run backward on one, and its graph is free before the next. With weight (B,
    L), only the terms that it gives weight to.
    """
    states = find_states(model, prompt, tokens, rank, weight)
    wanted = torch.zeros_like(states.canvas, dtype=torch.bool)                # (U, P+L)
    wanted[states.state, states.column] = True
    for some in run_states(model, states, wanted, budget):
        logp = temper(some.logits, temperature).log_softmax(-1)                 # (m, V)
        token = tokens[some.row, some.position]
        yield some.row, some.position, logp[some.place, token]                  # eq. 6


@dataclass
class States:
    """N terms, and the U distinct canvases in which they are asked for: siblings share
    prefixes, so that many terms are of one state, which is run once."""
    row: torch.Tensor           # (N,) of the batch
    position: torch.Tensor      # (N,) of the completion, 0 ... L-1
    column: torch.Tensor        # (N,) the same of the canvas, P ... P+L-1
    state: torch.Tensor         # (N,) 0 ... U-1
    canvas: torch.Tensor        # (U, P+L)


def find_states(model, prompt, tokens, rank, weight=None):
    L = rank.shape[1]
    row, position = ((0 <= rank) & (rank < L)).nonzero(as_tuple=True)           # (N,)
    # Eq. 5: what was not yet committed when this token was, the token itself included, is
    # MASK. From left to right that is o_1 ... o_{k-1}, MASK, ..., MASK.
    hidden = rank[row] >= rank[row, position][:, None]                          # (N, L)
    visible = tokens[row].masked_fill(hidden, model.config.mask_id)             # (N, L)
    canvas = torch.cat([prompt[row], visible], dim=1)                         # (N, P+L)
    if weight is not None:
        kept = has_weight(canvas, position, tokens[row, position], weight[row, position])
        row, position, canvas = row[kept], position[kept], canvas[kept]
    canvas, state = distinct(canvas)
    return States(row, position, prompt.shape[1] + position, state, canvas)


def has_weight(canvas, position, token, weight):
    """(N,) bool: whether a term can push at all.

    Siblings that write the same token in the same state push by the sum of their
    weights: where it is zero, as while all agree, the term is skipped. (Where siblings
    part, that of the whole state is zero, too, but not a token's.) Below 1e-6 of its
    parts it is rounding.
    """
    _, term = distinct(torch.cat([canvas, position[:, None], token[:, None]], 1))
    both = torch.stack([weight, weight.abs()])                                  # (2, N)
    both = both.double() if has_float64(both.device) else both
    total, size = torch.zeros_like(both).index_add(1, term, both)            # (N,) each
    return (total.abs() > 1e-6 * size)[term]


@dataclass
class StatesRun:
    """u of the states, run: m logits, and the n terms that are asked for in them."""
    row: torch.Tensor           # (n,)
    position: torch.Tensor      # (n,)
    place: torch.Tensor         # (n,) where in the logits a term's position is
    logits: torch.Tensor      # (m, V), of the positions that are wanted, state by state
    state: torch.Tensor         # (n,) 0 ... u-1
    wanted: torch.Tensor        # (u, P+L)


def run_states(model, states, wanted, budget=BUDGET):
    """Run every state, some at a time: yields StatesRun.

    wanted (U, P+L): where its logits are wanted, the terms' own columns among them.
    """
    start = 0
    for canvas, here in chunks(model, states.canvas, wanted, budget=budget):
        mine = (start <= states.state) & (states.state < start + len(canvas))   # (N,)
        state = states.state[mine] - start                                      # (n,)
        place = numbered(here)[state, states.column[mine]]                      # (n,)
        yield StatesRun(states.row[mine], states.position[mine], place,
                        model(canvas, here), state, here)
        start += len(canvas)
