"""GRPO with the exact likelihood: JustGRPO's algorithm box (arXiv 2601.15165, section 3).

    roll out    G completions a prompt, left to right                   sample.generate
    judge       A = (r - mean) / std within the prompt's group          advantages
    recompute   log pi(y_k | x, y_<k, MASK...MASK) at every k           log_probs
    push        loss = - sum A log pi / number of tokens                grpo_loss

Departures from the paper's eq. 8: one update a batch, so the ratio pi/pi_old is 1 and its clip can
never act; both are left out, and the gradient is the same. No KL term (the paper's weight is 0).
The sum is divided by the tokens of the whole batch, not of each completion, so that a token counts
alike in long and short answers (DAPO, arXiv 2503.14476). Nothing counts after end-of-text. In
train.py the learning rate falls linearly to zero, for the sake of the parallel decoders, which
are the first to suffer from large steps.

Legend: Q prompts, G rollouts each, B = Q * G rows, P prompt length, L completion length, V
vocabulary, N terms (one a committed token), U distinct canvases."""
import torch

def advantages(rewards):
    """(Q, G) -> (Q, G), against the siblings (GRPO, arXiv 2402.03300, section 4.1.2), with the
    unbiased std; exactly 0 where a group agrees."""
    agree = (rewards == rewards[:, :1]).all(1, keepdim=True)
    centered = rewards - rewards.mean(1, keepdim=True)
    std = (centered.square().sum(1, keepdim=True) / max(rewards.shape[1] - 1, 1)).sqrt()
    return (centered / (std + 1e-4)).masked_fill(agree, 0.0)

def log_probs(model, prompt, completion, rank, chunk_size=128):
    """Where this project computes the probability of a completion, for any order of filling it in:

        log pi(y | x, rank) = sum_i log p( y_i | x, { y_j : rank_j < rank_i }, MASK elsewhere )

    prompt (B, P), completion and rank (B, L). Rank L is "never committed": no term, and MASK in
    every state. With ranks 0, 1, 2, ... this is eq. 6 of JustGRPO, exact in spite of the
    bidirectional attention. It is the policy of the sampler at temperature 1, wherever the draws do
    not choose the position; in `confidence` order they do, and that choice is left out.

    Yields pieces (row (n,), position (n,), log p (n,)) that together hold every committed position
    once; a caller can run backward on a piece and free its graph before the next. Each distinct
    state is run once: rollouts of a prompt share prefixes."""
    length = completion.shape[1]
    row, position = (rank < length).nonzero(as_tuple=True)                     # (N,) each
    hidden = rank[row] >= rank[row, position][:, None]                         # (N, L)
    canvas = completion[row].masked_fill(hidden, model.config.mask_id)
    states, which = torch.cat([prompt[row], canvas], dim=1).unique(dim=0, return_inverse=True)
    for start in range(0, len(states), chunk_size):                            # (U, P+L), (N,)
        here = (start <= which) & (which < start + chunk_size)
        r, i = row[here], position[here]
        logits = model(states[start:start + chunk_size])[:, -length:]          # (u, L, V)
        logp = logits[which[here] - start, i].log_softmax(-1)                  # (n, V)
        yield r, i, logp.gather(1, completion[r, i][:, None])[:, 0]

def grpo_loss(model, prompt, completion, rank, advantage, chunk_size=128):
    """Yields the loss in pieces to call backward on; their sum is - sum_i A_row(i) log p_i / N over
    the N committed tokens of all rows (eq. 8 with ratio 1). advantage (B,).

    Rows without advantage are skipped, but their tokens count in N, so that a batch with little
    signal weighs less in Adam's averages. All other terms stay, also where the advantages at a
    shared state sum to zero: siblings that part there, at a fork, pull on different tokens."""
    n_tokens = (rank < completion.shape[1]).sum()
    kept = advantage.nonzero()[:, 0]
    for row, _, logp in log_probs(model, prompt[kept], completion[kept], rank[kept], chunk_size):
        yield -(advantage[kept][row] * logp).sum() / n_tokens
