"""GRPO with the exact likelihood: JustGRPO's algorithm box (arXiv 2601.15165, section 3); and all
that it replaces, by another choice of two orders, the rollouts' and the likelihood's.

    roll out    G completions a prompt, in the arm's order              sample.generate
    judge       A = (r - mean) / std within the prompt's group          advantages
    recompute   log pi(y_k | x, y_<k, MASK...MASK) at every k           asked, log_probs
    push        loss = - sum A log pi / number of tokens                grpo_loss

Departures from the paper's eq. 8: the sum is divided by the tokens of the batch, not of each text,
so that a token counts alike in long and short ones (DAPO, arXiv 2503.14476); left to right, nothing
counts after end-of-text; no KL term (the paper's weight is 0); the learning rate falls to zero.
Legend: Q prompts x G rollouts = B rows, P prompt, L completion, V vocabulary, N terms, U states."""
import torch
from model import BUDGET, chunks, distinct, draw_masks

ARMS = {        # rollouts: order, selection; likelihood: see `asked`; what it is or stands for
    "justgrpo": ("left_to_right", "k", "recorded", "the paper's, exact"),
    "random": ("random", "k", "recorded", "a permutation a rollout, exact: JustGRPO-Random"),
    "confidence": ("confidence", "k", "recorded", "LCR, without its choice of place: TraceRL"),
    "confidence_exact": ("confidence", "k", "exact", "LCR, with the law of its choice of place"),
    "top_probability": ("top_probability", "k", "recorded", "TPP, exact: 2609.34509's proposal"),
    "fork": ("top_probability", "fork", "fallback", "TPP, leftmost if nothing is sure: ForkGRPO"),
    "one_step": ("confidence", "k", "one_step", "LCR, judged as if in one step: d1's diffu-GRPO"),
    "elbo": ("confidence", "k", "coupled", "LCR, a random mask and its complement: coupled-GRPO"),
    "mismatch": ("confidence", "k", "left_to_right", "LCR, judged as if left to right"),
    "rejection": ("left_to_right", "k", "diffusion", "pretraining's loss on the right rollouts")}

def advantages(rewards, kind="std"):
    """(Q, G) -> (Q, G), against the siblings; 0 where a group agrees. std: over their deviation
    (GRPO, 2402.03300, 4.1.2); none: not (Dr. GRPO, 2503.20783); leave_one_out: from the mean of the
    others (RLOO, 2402.14740), which is G/(G-1) times none: Adam hardly sees a factor."""
    agree, rewards = (rewards == rewards[:, :1]).all(1, keepdim=True), rewards.float()
    centered, others = rewards - rewards.mean(1, keepdim=True), max(rewards.shape[1] - 1, 1)
    std = (centered.square().sum(1, keepdim=True) / others).sqrt()
    factor = {"std": 1 / (std + 1e-4), "none": 1, "leave_one_out": 1 + 1 / others}[kind]
    return (centered * factor).masked_fill(agree, 0.0)

def asked(kind, prompt, sample, length, mask_id, prompt_mask=0.15, generator=None):
    """What an arm asks of the likelihood -> prompt, completion, rank, scale (B, L): each term's
    weight, 0 where there is none. length (B,): of the texts, first end-of-text included.
    recorded, exact: each committed token in the state in which it was committed.
    fallback: of these, those where nothing was sure (.9 is fork's threshold), as ForkGRPO does.
    left_to_right: each token after those on its left, whatever the rollout's order was.
    one_step: each at rank 0, after nothing; a share of the prompt masked (d1: anew each update).
    coupled (2B rows): each token, hidden with probability t ~ U(0, 1], given those that are not,
    over 2t; or the other way round, over 2(1-t). In expectation that is log p averaged over all
    orders, the ELBO. (coupled-GRPO, 2506.20639, adds a full mask, and keeps t from 0 and 1.)
    After the text, these three see MASK, whatever the rollout committed there."""
    completion, rank = sample.tokens, sample.rank
    if kind in ("recorded", "exact", "fallback"):
        terms = (rank < rank.shape[1]) & ((sample.top < 0.9) | (kind != "fallback"))
        return prompt, completion, rank, terms.float()
    order = torch.arange(rank.shape[1], device=rank.device).expand_as(rank)
    after = order >= length[:, None]
    scale = (~after).float()
    if kind == "one_step":
        masked = torch.rand(prompt.shape, generator=generator).to(prompt.device) < prompt_mask
        prompt, order = prompt.masked_fill(masked, mask_id), order * 0
    elif kind == "coupled":
        t, hidden = (x.to(rank.device) for x in draw_masks(*rank.shape, generator))
        share = torch.where(hidden, t[:, None], 1 - t[:, None])     # of masks where i is hidden
        prompt, completion, after = (x.repeat(2, 1) for x in (prompt, completion, after))
        order = torch.cat([hidden.long() - 1, -hidden.long()])  # 0: asked, -1: given
        scale = torch.cat([hidden, ~hidden]) * (scale / (2 * share)).repeat(2, 1)
    return prompt, completion, order.masked_fill(after, rank.shape[1]), scale

def choose(kind, fraction, entropy, scale, generator=None):
    """scale (B or 2B, L) with a fraction of its terms kept: those with the highest entropy (B, L)
    at their commit (top_entropy: JustGRPO-Fast), or any (random: its control)."""
    both = scale.view(-1, *entropy.shape)           # of `coupled`, each term stands in one half
    score = entropy if kind == "top_entropy" else torch.rand(entropy.shape, generator=generator)
    score = score.to(scale.device).masked_fill((both == 0).all(0), -torch.inf).flatten()
    kept = score.topk(max(1, round(fraction * int((scale > 0).sum())))).indices
    return (both * torch.zeros_like(score).index_fill(0, kept, 1.0).view_as(entropy)).view_as(scale)

def log_probs(model, prompt, completion, rank, weight=None, budget=BUDGET, temperature=1.0,
              lcr_block=None):
    """Where this project computes the probability of a completion, for any order of filling it in:

        log pi(y | x, rank) = sum_i log p( y_i | x, { y_j : rank_j < rank_i }, MASK elsewhere )

    prompt (B, P), completion and rank (B, L). Rank L is "never committed": no term, MASK in every
    state; rank -1 is "given": no term, never MASK. With ranks 0, 1, 2, ... this is eq. 6 of
    JustGRPO, exact in spite of the bidirectional attention. It is the sampler's policy wherever the
    draws do not choose the position. In `confidence` order they do, and that choice is left out,
    unless lcr_block has the length of the rollouts' blocks. Yields pieces (row (n,), position (n,),
    log p (n,)) that together hold every committed position once: run backward on one, and its graph
    is free before the next. Each distinct state is run once: rollouts share prefixes. With weight
    (B, L), only what it gives weight."""
    mask_id, P, L = model.config.mask_id, prompt.shape[1], completion.shape[1]
    row, position = ((0 <= rank) & (rank < L)).nonzero(as_tuple=True)          # (N,) each
    hidden = rank[row] >= rank[row, position][:, None]                         # (N, L)
    canvas = torch.cat([prompt[row], completion[row].masked_fill(hidden, mask_id)], 1)  # (N, P+L)
    if weight is not None:
        kept = has_weight(canvas, position, completion[row, position], weight[row, position])
        row, position, canvas = row[kept], position[kept], canvas[kept]
    states, state = distinct(canvas)                                           # (U, P+L), (N,)
    wanted = torch.zeros_like(states, dtype=torch.bool)
    wanted[state, P + position] = True
    if lcr_block:       # then every mask in the block of the leftmost one had a say
        masked = states[:, P:] == mask_id
        block = torch.arange(L, device=rank.device) // lcr_block
        wanted[:, P:] = masked & (block == block[masked.int().argmax(1)][:, None])
    start = 0
    for canvas, asks in chunks(model, states, wanted, budget=budget):          # (u, P+L)
        here = (start <= state) & (state < start + len(canvas))
        s, r, i = state[here] - start, row[here], position[here]               # (n,)
        logits = model(canvas, asks)                                           # (asks.sum(), V)
        tempered = (logits / temperature).log_softmax(-1)
        place = asks.flatten().cumsum(0).view_as(asks) - 1                     # where in logits
        at = place[s, P + i], completion[r, i]
        logp = tempered[at]
        if lcr_block:
            p = logits.detach().softmax(-1)
            logp = logp + place_law(p, tempered.exp(), p[at], asks[:, P:], s, i)
        yield r, i, logp
        start += len(canvas)

def place_law(p, q, bar, asks, state, position):
    """LCR's choice of place, (n,): log prod_j sum of q_j(u) over the u with p_j(u) < bar = p_i(v):
    every other mask j drew something less likely. p, q = p^(1/T) / Z, (m, V): of the masks that
    asks (u, L) marks, row by row. Within 1e-5 of bar counts as less: of equals (at padding, p = 1)
    rounding decides. Where two p cross, this probability jumps, and no gradient sees the jump."""
    def spread(x):      # (m, V) -> (u, L, V), 0 where not asked
        return x.new_zeros(*asks.shape, x.shape[1]).masked_scatter(asks[..., None], x)
    less = spread(p)[state] <= bar[:, None, None] * (1 + 1e-5)                 # (n, L, V)
    mass = (spread(q)[state] * less).sum(-1)                                   # (n, L)
    rival = asks[state].scatter(1, position[:, None], False)
    return mass.where(rival, mass.new_ones(())).clamp(min=1e-30).log().sum(1)

def has_weight(canvas, position, token, weight):
    """(N,) bool. Siblings that write the same token in the same state push by the sum of their
    weights: where it is zero, as while all agree, the term is skipped. (Where siblings part, that
    of the whole state is zero, too, but not a token's.) Below 1e-6 of its parts it is rounding."""
    _, term = distinct(torch.cat([canvas, position[:, None], token[:, None]], 1))
    w = torch.stack([weight, weight.abs()]).double()                           # (2, N)
    total, size = w.new_zeros(2, len(w[0])).index_add(1, term, w)              # (N,) each
    return (total.abs() > 1e-6 * size)[term]

@torch.no_grad()
def log_prob_table(model, prompt, completion, rank, **how):
    """log_probs as one (B, L), 0 where there is no term, without a gradient."""
    table = torch.zeros(rank.shape, device=rank.device)
    for row, position, logp in log_probs(model, prompt, completion, rank, **how):
        table[row, position] = logp
    return table

def grpo_loss(model, prompt, completion, rank, advantage, budget=BUDGET, scale=None, norm="token",
              old=None, clip=(0.2, 0.2), clipped=None, **how):
    """Yields the loss in pieces to call backward on; their sum is - sum_i w_i log p_i, with
    w_i = scale_i A_row(i) / N. advantage (B,); scale (B or 2B, L), by default 1; how: of log_probs.
    norm: N is the number of terms (token, DAPO), of those of i's text times B (sequence, eq. 8), or
    of places, B * L (constant, Dr. GRPO). Rows without advantage add nothing, but count in N, so
    that a batch with little signal weighs less in Adam's averages.
    With one update a batch pi / pi_old is 1: no clip can act, and its gradient is that of log pi.
    With more, old (B, L) has log pi_old; the ratio is kept to 1 - clip[0] .. 1 + clip[1] (eq. 8;
    two bounds: DAPO), and the list clipped gets which terms of each piece lose their gradient."""
    scale = ((0 <= rank) & (rank < rank.shape[1])).float() if scale is None else scale
    B, L = len(advantage), rank.shape[1]
    halves = scale.view(-1, B, L)       # two for arm elbo, which has each text twice
    n = (halves > 0).sum((0, 2))                                               # (B,)
    N = {"token": n.sum(), "sequence": B * n.clamp(min=1), "constant": B * L}[norm]
    weight = (halves * (advantage / N)[:, None]).view_as(scale)                # (B or 2B, L)
    needed = weight if old is None else weight.abs()    # with a clip, opposites need not cancel
    for row, i, logp in log_probs(model, prompt, completion, rank, needed, budget, **how):
        w = weight[row, i]
        if old is None:
            loss = -(w * logp).sum()
        else:
            ratio = (logp - old[row, i]).exp()
            bounded = ratio.clamp(1 - clip[0], 1 + clip[1])
            loss = -torch.minimum(w * ratio, w * bounded).sum()
            clipped.append(w * ratio > w * bounded)
        yield loss
