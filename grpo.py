"""GRPO with the exact likelihood: advantages, log-probabilities under a rank, the loss.

The algorithm box of JustGRPO (arXiv 2601.15165, section 3), one line a function:

    roll out    y ~ pi(. | x), G completions a prompt, left to right    sample.generate
    judge       A = (r - mean) / std within the prompt's group          advantages
    recompute   log pi(y_k | x, y_<k, MASK...MASK) at every position    log_probs
    push        loss = - sum A log pi / number of tokens                grpo_loss

Departures from the paper's eq. 8: one update per batch, so the ratio pi/pi_old is 1 and its clip can
never act: both are left out, and the gradient is the same. No KL term (the paper's weight is 0). The
sum is divided by the tokens of the whole batch, not of each completion, so that long and short
answers count alike a token (DAPO, arXiv 2503.14476). Tokens after end-of-text do not count.

Legend: Q prompts, G rollouts each, B = Q * G rows, P prompt length, L completion length,
N terms (one a committed token), U distinct canvases. No optimizer, no files, no prints here.
"""
import torch


def advantages(rewards):
    """(Q, G) -> (Q, G): better or worse than its siblings (GRPO, arXiv 2402.03300, section 4.1.2).
    The unbiased std; exactly 0 where a group agrees (or is of one)."""
    agree = (rewards == rewards[:, :1]).all(1, keepdim=True)
    centered = rewards - rewards.mean(1, keepdim=True)
    std = centered.square().sum(1, keepdim=True).div(max(rewards.shape[1] - 1, 1)).sqrt()
    return (centered / (std + 1e-4)).masked_fill(agree, 0.0)


def log_probs(model, prompt, completion, rank, keep=None, chunk_size=128):
    """Where this project computes the probability of a completion, for any order of filling it in:

        log pi(y | x, rank) = sum_i log p( y_i | x, { y_j : rank_j < rank_i }, MASK elsewhere )

    prompt (B, P), completion (B, L), rank (B, L); a rank of L means never committed: not a term, and
    MASK in every state. With rank 0, 1, 2, ... it is eq. 6 of JustGRPO, exact in spite of the
    bidirectional attention. It is the sampler's own policy wherever the draws don't choose the
    position; in `confidence` order they do, and that choice's probability is left out here.

    Yields pieces (row (n,), position (n,), log p (n,)), which together hold every committed position
    once (or those that `keep` (B, L) marks), so that a caller can run backward on one piece and free
    its graph before the next. Each distinct state is run once: rollouts of a prompt share prefixes.
    """
    length, mask_id = completion.shape[1], model.config.mask_id
    committed = rank < length
    row, position = (committed if keep is None else committed & keep).nonzero(as_tuple=True)   # (N,)
    seen = rank[row] < rank[row, position][:, None]                                      # (N, L)
    state = torch.cat([prompt[row], completion[row].masked_fill(~seen, mask_id)], dim=1)  # (N, P+L)
    state, which = state.unique(dim=0, return_inverse=True)                      # (U, P+L), (N,)
    for start in range(0, len(state), chunk_size):
        here = (start <= which) & (which < start + chunk_size)
        r, i = row[here], position[here]
        logits = model(state[start:start + chunk_size])[:, -length:]             # (u, L, V)
        logits = logits[which[here] - start, i]                                  # (n, V)
        yield r, i, logits.log_softmax(-1).gather(1, completion[r, i][:, None])[:, 0]


def grpo_loss(model, prompt, completion, rank, advantage, chunk_size=128):
    """Yields the loss in pieces; their sum is  - sum_i A_row(i) log p_i / N  over the N committed
    tokens of all rows (eq. 8 with ratio 1). advantage (B,). Call backward on each piece.

    Rows with zero advantage are skipped, but their tokens still count in N: a batch with little
    signal takes a small step. All other terms are kept, also at a state whose advantages sum to
    zero: siblings that part there pull on different tokens, and that is the fork's gradient.
    """
    n_tokens = (rank < completion.shape[1]).sum()
    keep = (advantage != 0)[:, None].expand_as(rank)
    for row, _, logp in log_probs(model, prompt, completion, rank, keep, chunk_size):
        yield -(advantage[row] * logp).sum() / n_tokens
