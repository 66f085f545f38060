"""GRPO with the exact likelihood: JustGRPO's algorithm box (arXiv 2601.15165, section 3).

    roll out    G completions a prompt, left to right                   sample.generate
    judge       A = (r - mean) / std within the prompt's group          advantages
    recompute   log pi(y_k | x, y_<k, MASK...MASK) at every k           log_probs
    push        loss = - sum A log pi / number of tokens                grpo_loss

Departures from the paper's eq. 8: one update a batch, so the ratio pi/pi_old is 1 and its clip can
never act; both are left out, and the gradient is the same. No KL term (the paper's weight is 0).
The sum is divided by the tokens of the whole batch, not of each completion, so that a token counts
alike in long and short answers (DAPO, arXiv 2503.14476). Nothing counts after end-of-text. In
train.py the learning rate falls to zero: the parallel decoders suffer first from large steps.
Legend: Q prompts x G rollouts = B rows, P prompt, L completion, V vocabulary, N terms, U states."""
import torch
from model import BUDGET, chunks, distinct

def advantages(rewards):
    """(Q, G) -> (Q, G), against the siblings (GRPO, 2402.03300, 4.1.2); 0 where a group agrees."""
    agree, rewards = (rewards == rewards[:, :1]).all(1, keepdim=True), rewards.float()
    centered = rewards - rewards.mean(1, keepdim=True)
    std = (centered.square().sum(1, keepdim=True) / max(rewards.shape[1] - 1, 1)).sqrt()
    return (centered / (std + 1e-4)).masked_fill(agree, 0.0)

def log_probs(model, prompt, completion, rank, advantage=None, budget=BUDGET):
    """Where this project computes the probability of a completion, for any order of filling it in:

        log pi(y | x, rank) = sum_i log p( y_i | x, { y_j : rank_j < rank_i }, MASK elsewhere )

    prompt (B, P), completion and rank (B, L). Rank L is "never committed": no term, and MASK in
    every state. With ranks 0, 1, 2, ... this is eq. 6 of JustGRPO, exact in spite of the
    bidirectional attention. It is the policy of the sampler at temperature 1, wherever the draws do
    not choose the position; in `confidence` order they do, and that choice is left out.
    Yields pieces (row (n,), position (n,), log p (n,)) that together hold every committed position
    once; a caller can run backward on a piece and free its graph before the next. Each distinct
    state is run once: rollouts share prefixes. With advantage (B,), only what it gives weight."""
    mask_id, P, L = model.config.mask_id, prompt.shape[1], completion.shape[1]
    row, position = (rank < L).nonzero(as_tuple=True)                          # (N,) each
    hidden = rank[row] >= rank[row, position][:, None]                         # (N, L)
    canvas = torch.cat([prompt[row], completion[row].masked_fill(hidden, mask_id)], 1)  # (N, P+L)
    if advantage is not None:
        kept = has_weight(canvas, position, completion[row, position], advantage[row])
        row, position, canvas = row[kept], position[kept], canvas[kept]
    states, state = distinct(canvas)                                           # (U, P+L), (N,)
    wanted = torch.zeros_like(states, dtype=torch.bool)
    wanted[state, P + position] = True
    start = 0
    for canvas, asked in chunks(model, states, wanted, budget=budget):         # (u, P+L)
        here = (start <= state) & (state < start + len(canvas))
        r, i = row[here], position[here]                                       # (n,)
        logp = model(canvas, asked).log_softmax(-1)                            # (asked.sum(), V)
        place = asked.flatten().cumsum(0).view_as(asked) - 1                   # where in logp
        yield r, i, logp[place[state[here] - start, P + i], completion[r, i]]
        start += len(canvas)

def has_weight(canvas, position, token, advantage):
    """(N,) bool. Siblings that write the same token in the same state push by the sum of their
    advantages: nothing if that is zero, as before siblings part. Token by token: over a whole state
    the sum is zero wherever siblings part, and there they pull on different tokens.
    A sum of floats is hardly ever 0.0; what is below 1e-6 of its parts is rounding."""
    _, term = distinct(torch.cat([canvas, position[:, None], token[:, None]], 1))
    a = torch.stack([advantage, advantage.abs()]).double()                     # (2, N)
    total, size = a.new_zeros(2, len(a[0])).index_add(1, term, a)              # (N,) each
    return (total.abs() > 1e-6 * size)[term]

def grpo_loss(model, prompt, completion, rank, advantage, budget=BUDGET):
    """Yields the loss in pieces to call backward on; their sum is - sum_i A_row(i) log p_i / N over
    the N committed tokens of all rows (eq. 8 with ratio 1). advantage (B,).
    Rows without advantage add nothing, but their tokens count in N, so that a batch with little
    signal weighs less in Adam's averages."""
    n_tokens = (rank < completion.shape[1]).sum()
    for row, _, logp in log_probs(model, prompt, completion, rank, advantage, budget):
        yield -(advantage[row] * logp).sum() / n_tokens
