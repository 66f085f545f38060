"""The rivals of JustGRPO: other rollouts, other likelihoods, in the same loop.

    python train.py                                     makes out/base.pt
    python experiments/arms.py lcr                      a minute or two on the same base
    python experiments/arms.py left_to_right --updates-per-batch 4

What a method for diffusion models does differently is here two orders: the one in which its
rollouts are written, and the one in which their likelihood is computed. A rival is one entry of
ARMS below. Leaves in --out, beside the base: NAME.pt, NAME-log.csv, NAME-results.csv,
NAME-measures.csv, NAME-summary.json and NAME-state.pt, for --resume.

Legend: Q prompts x G rollouts = B rows, P prompt, L completion, V vocabulary; U states, u of
them run together; n terms, m logits.
"""
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from grpo import (Arm, Recipe, Terms, advantages, find_states, judge, log_probs,
                  run_states)
from model import BUDGET, diffusion_loss, draw_masks
from runs import Run, ends_quietly
from sample import Decoder, folder, new_parser, pick_device, positive, temper, text_length

# ----------------------------------------------------------------------------------------
# what is asked of the likelihood


@dataclass
class Asked(Terms):
    """Terms, and how much each counts."""
    scale: torch.Tensor         # (B, L), 0 where there is no term
    old: torch.Tensor = None    # (B, L) log pi_old, if there are several updates a batch


# Each of these makes Asked of a prompt (B, P), a Sample, the texts' lengths (B,), the mask id
# and a generator. The last three see MASK after the text, whatever the rollout committed there.


def recorded(prompt, sample, length, mask_id, generator):
    """Each committed token in the state in which it was committed."""
    is_term = sample.rank < sample.rank.shape[1]
    return Asked(prompt, sample.tokens, sample.rank, is_term.float())


def fallback(prompt, sample, length, mask_id, generator):
    """Of these, those where nothing was sure (.9 is fork's threshold), as ForkGRPO does."""
    asked = recorded(prompt, sample, length, mask_id, generator)
    asked.scale = asked.scale * (sample.top < 0.9)
    return asked


def left_to_right(prompt, sample, length, mask_id, generator):
    """Each token after those on its left, whatever the rollout's order was."""
    L = sample.rank.shape[1]
    order = torch.arange(L, device=length.device).expand_as(sample.rank)        # (B, L)
    after = order >= length[:, None]
    return Asked(prompt, sample.tokens, order.masked_fill(after, L), (~after).float())


def one_step(prompt, sample, length, mask_id, generator, prompt_mask=0.15):
    """Each token after nothing: rank 0. A share of the prompt is masked, too (d1 draws these
    masks anew for each update)."""
    asked = left_to_right(prompt, sample, length, mask_id, generator)
    hidden = torch.rand(prompt.shape, generator=generator).to(prompt.device) < prompt_mask
    asked.prompt = prompt.masked_fill(hidden, mask_id)
    asked.rank = asked.rank.where(asked.rank == asked.rank.shape[1], 0)
    return asked


def coupled(prompt, sample, length, mask_id, generator):
    """Each token twice (2B rows): hidden with probability t ~ U(0, 1], given those that are
    not, over 2t; or the other way round, over 2(1-t).

    In expectation that is log p averaged over all orders, the ELBO. (coupled-GRPO,
    arXiv 2506.20639, adds a full mask, and keeps t from 0 and 1.)
    """
    asked = left_to_right(prompt, sample, length, mask_id, generator)
    t, hidden = draw_masks(*sample.rank.shape, generator)
    t, hidden = t.to(length.device), hidden.to(length.device)
    share = torch.where(hidden, t[:, None], 1 - t[:, None])     # of masks where it is hidden
    twice = asked.scale.bool().repeat(2, 1)                                     # (2B, L)
    order = torch.cat([hidden.long() - 1, -hidden.long()])      # 0: asked, -1: given
    scale = torch.cat([hidden, ~hidden]) * (asked.scale / (2 * share)).repeat(2, 1)
    return Asked(prompt.repeat(2, 1), sample.tokens.repeat(2, 1),
                 order.masked_fill(~twice, order.shape[1]), scale)

# ----------------------------------------------------------------------------------------
# the rivals


@dataclass
class Rival:
    order: str                  # of the rollouts: see sample.py
    select: str
    asks: object                # one of the functions above
    text: str                   # what it is, or what it stands for
    counts_place: bool = False  # the law of LCR's choice of a position is part of it


ARMS = {
    "left_to_right": Rival("left_to_right", "k", recorded, "JustGRPO, exact"),
    "random": Rival("random", "k", recorded,
                    "a permutation a rollout, exact: JustGRPO-Random"),
    "lcr": Rival("confidence", "k", recorded,
                 "confidence order, LCR, without its choice of place: TraceRL"),
    "lcr_exact": Rival("confidence", "k", recorded,
                       "LCR, with the law of its choice of place", counts_place=True),
    "tpp": Rival("top_probability", "k", recorded,
                 "top probability, TPP, exact: 2609.34509's proposal"),
    "fork": Rival("top_probability", "fork", fallback,
                  "TPP, leftmost if nothing is sure: ForkGRPO"),
    "one_step": Rival("confidence", "k", one_step,
                      "LCR, judged as if in one step: d1's diffu-GRPO"),
    "elbo": Rival("confidence", "k", coupled,
                  "LCR, a random mask and its complement: coupled-GRPO"),
    "mismatch": Rival("confidence", "k", left_to_right, "LCR, judged as if left to right"),
    "rejection": Rival("left_to_right", "k", recorded,
                       "pretraining's loss on the right rollouts"),
}


@dataclass
class Options:
    """What else may differ from JustGRPO, by the names of the flags."""
    advantage: str = "std"
    loss_norm: str = "token"
    positions: str = "all"
    fraction: float = 0.25
    clip_low: float = 0.2
    clip_high: float = 0.2


@dataclass
class Variant(Arm):
    rival: Rival = None
    options: Options = field(default_factory=Options)

    def advantages(self, reward):
        return advantages_by(self.options.advantage, reward)

    def terms(self, model, prompt, rollout, generator):
        mask_id, eos_id = model.config.mask_id, model.config.eos_id
        length = text_length(rollout.tokens, eos_id)
        asked = self.rival.asks(prompt, rollout, length, mask_id, generator)
        if self.options.positions != "all":
            asked.scale = choose(self.options, rollout.entropy, asked.scale, generator)
        self.clipped = []       # of each piece of the loss: which terms have no gradient
        if self.n_updates > 1:
            asked.old = self.log_prob_table(model, asked)
        return asked

    def losses(self, model, asked, advantage):
        """As grpo.policy_losses, of terms that count by scale; and with old, eq. 8's ratio.

        The ratio is kept to 1 - clip_low .. 1 + clip_high (two bounds: DAPO).
        """
        B, L = len(advantage), asked.rank.shape[1]
        halves = asked.scale.view(-1, B, L)     # two for `coupled`, which has each text twice
        n_terms = (halves > 0).sum((0, 2))                                      # (B,)
        n = {"token": n_terms.sum(),                            # DAPO
             "sequence": B * n_terms.clamp(min=1),              # GRPO's equation
             "constant": B * L}[self.options.loss_norm]         # Dr. GRPO
        weight = (halves * (advantage / n)[:, None]).view_as(asked.scale)       # (B or 2B, L)
        if asked.old is None:
            for row, position, logp in self.log_probs(model, asked, weight):
                yield -(weight[row, position] * logp).sum()
            return
        # With a clip, opposites need not cancel: no term is left out because of its sum.
        low, high = 1 - self.options.clip_low, 1 + self.options.clip_high
        for row, position, logp in self.log_probs(model, asked, weight.abs()):
            w = weight[row, position]
            ratio = (logp - asked.old[row, position]).exp()
            bounded = ratio.clamp(low, high)
            self.clipped.append(w * ratio > w * bounded)
            yield -torch.minimum(w * ratio, w * bounded).sum()

    def own_measures(self):
        if not self.clipped:
            return {}
        return {"clipped": torch.cat(self.clipped).float().mean().item()}

    def log_probs(self, model, asked, weight, budget=BUDGET):
        args = model, asked.prompt, asked.tokens, asked.rank, weight, self.decoder.temperature
        if self.rival.counts_place:
            block = self.decoder.block_length or asked.rank.shape[1]
            return log_probs_with_place(*args, block, budget)
        return log_probs(*args, budget)

    @torch.no_grad()
    def log_prob_table(self, model, asked):
        """As one (B, L), 0 where there is no term."""
        table = torch.zeros(asked.rank.shape, device=asked.rank.device)
        for row, position, logp in self.log_probs(model, asked, asked.scale):
            table[row, position] = logp
        return table


class Rejection(Variant):
    """No advantage, no likelihood: pretraining's loss on the rollouts that are right."""

    def rewards(self, task, rollout, problems):
        return judge(task, rollout, problems, pay=task.is_right)

    def advantages(self, reward):
        return (reward > 0).float()

    def terms(self, model, prompt, rollout, generator):
        self.generator, self.clipped = generator, []
        return Terms(prompt, rollout.tokens, rollout.rank)

    def losses(self, model, terms, advantage):
        is_right = advantage > 0                                                # (B,)
        if is_right.any():
            tokens = terms.tokens[is_right]
            masks = draw_masks(*tokens.shape, self.generator)
            yield diffusion_loss(model, terms.prompt[is_right], tokens, *masks)


def advantages_by(kind, reward):
    """(Q, G) -> (Q, G), 0 where a group agrees. std: GRPO's. none: not divided (Dr. GRPO,
    arXiv 2503.20783). leave_one_out: from the mean of the others (RLOO, 2402.14740), which is
    G/(G-1) times none: Adam hardly sees a factor."""
    if kind == "std":
        return advantages(reward)
    agree = (reward == reward[:, :1]).all(1, keepdim=True)
    centered = reward.float() - reward.float().mean(1, keepdim=True)
    n_others = max(reward.shape[1] - 1, 1)
    factor = 1 if kind == "none" else 1 + 1 / n_others
    return (centered * factor).masked_fill(agree, 0.0)


def choose(options, entropy, scale, generator):
    """scale (B or 2B, L) with a fraction of its terms kept: those with the highest entropy
    (B, L) at their commit (top_entropy: JustGRPO-Fast), or any (random: its control)."""
    halves = scale.view(-1, *entropy.shape)     # of `coupled`, each term stands in one half
    score = entropy
    if options.positions == "random":
        score = torch.rand(entropy.shape, generator=generator)
    is_none = (halves == 0).all(0)                                              # (B, L)
    score = score.to(scale.device).masked_fill(is_none, -torch.inf).flatten()
    n_kept = max(1, round(options.fraction * int((scale > 0).sum())))
    kept = torch.zeros_like(score).index_fill(0, score.topk(n_kept).indices, 1.0)
    return (halves * kept.view_as(entropy)).view_as(scale)

# ----------------------------------------------------------------------------------------
# LCR's choice of a position


def log_probs_with_place(model, prompt, tokens, rank, weight, temperature, block, budget=BUDGET):
    """grpo.log_probs, and the probability that LCR chose this position.

    block: the length of the rollouts' blocks. Every mask in the block of the leftmost one had
    a say.
    """
    P, L = prompt.shape[1], tokens.shape[1]
    states = find_states(model, prompt, tokens, rank, weight)
    masked = states.canvas[:, P:] == model.config.mask_id                       # (U, L)
    block_of = torch.arange(L, device=rank.device) // block                     # (L,)
    in_block = block_of == block_of[masked.int().argmax(1)][:, None]            # (U, L)
    wanted = torch.nn.functional.pad(masked & in_block, (P, 0))                 # (U, P+L)
    wanted[states.state, states.column] = True
    for run in run_states(model, states, wanted, budget):
        logq = temper(run.logits, temperature).log_softmax(-1)                  # (m, V)
        p = run.logits.detach().softmax(-1)                                     # (m, V)
        token = tokens[run.row, run.position]
        law = place_law(p, logq.exp(), p[run.place, token], run.wanted[:, P:], run.state,
                        run.position)
        yield run.row, run.position, logq[run.place, token] + law


def place_law(p, q, bar, asks, state, position):
    """LCR's choice of place, (n,): log prod_j sum of q_j(u) over the u with p_j(u) < bar =
    p_i(v): every other mask j drew something less likely.

    p and q = p^(1/T) / Z (m, V): of the masks that asks (u, L) marks, row by row. Within 1e-5
    of bar counts as less: of equals (at padding, p = 1) rounding decides. Where two p cross,
    this probability jumps, and no gradient sees the jump.
    """
    def spread(x):
        """(m, V) -> (u, L, V), 0 where not asked"""
        empty = x.new_zeros(*asks.shape, x.shape[1])
        return empty.masked_scatter(asks[..., None], x)

    less = spread(p)[state] <= bar[:, None, None] * (1 + 1e-5)                  # (n, L, V)
    mass = (spread(q)[state] * less).sum(-1)                                    # (n, L)
    rival = asks[state].scatter(1, position[:, None], False)
    return mass.where(rival, mass.new_ones(())).clamp(min=1e-30).log().sum(1)

# ----------------------------------------------------------------------------------------
# python experiments/arms.py


def make_parser():
    parser = new_parser("Train a rival of JustGRPO on the base in --out, and measure it.")
    add = parser.add_argument
    add("arm", choices=ARMS, metavar="ARM", help="; ".join(
        f"{name}: {rival.text}" for name, rival in ARMS.items()))
    add("--out", type=folder, default="out", help="folder with train.py's base.pt")
    add("--resume", action="store_true", help="go on with the run that was stopped, with the "
        "same flags")
    add("--quick", action="store_true", help="everything tiny; its numbers mean little")
    add("--data", help="the GSM8K file that the base was trained on, if it was")
    add("--test", help="and its test file")
    train.add_grpo_flags(parser)
    # the rollouts
    add("--rollout-temperature", type=positive(float), default=1.0, help="also the likelihood's")
    add("--rollout-block-length", type=int, help="rollouts finish blocks of so many tokens")
    # the loss
    add("--advantage", default="std", choices=["std", "none", "leave_one_out"],
        help="GRPO's, Dr. GRPO's, RLOO's")
    add("--loss-norm", default="token", choices=["token", "sequence", "constant"],
        help="over a batch's tokens, a text's, all places")
    add("--positions", default="all", choices=["all", "top_entropy", "random"],
        help="all, or a --fraction: the least certain, any")
    add("--fraction", type=positive(float), default=0.25, help="of a batch's terms")
    add("--updates-per-batch", type=positive(int), default=1, help="above 1: a ratio, a clip")
    add("--clip-low", type=positive(float), default=0.2, help="the ratio is kept above 1 less this")
    add("--clip-high", type=positive(float), default=0.2, help="and below 1 plus this")
    # the optimizer
    add("--grpo-schedule", default="linear", choices=["linear", "constant"],
        help="the rate falls to zero, or (the paper's) stays")
    add("--adam-eps", type=positive(float), default=1e-8, help="of AdamW")
    return parser


def parse_flags(argv):
    parser = make_parser()
    first, _ = parser.parse_known_args(argv)
    if first.quick:
        known = vars(first)
        parser.set_defaults(**{k: v for k, v in train.QUICK.items() if k in known})
    return parser, parser.parse_args(argv)


def check(parser, args, task):
    """Raises ValueError for flags that mean nothing together."""
    def refuse(names, reason):
        for name in names.split():
            if getattr(args, name) != parser.get_default(name):
                raise ValueError(f"--{name.replace('_', '-')} means nothing here: {reason}")

    L = task.completion_length
    if args.rollout_block_length not in (None, *range(1, L + 1)):
        raise ValueError(f"--rollout-block-length must be from 1 to {L}")
    if args.fraction > 1:
        raise ValueError("--fraction is at most 1")
    if args.arm == "rejection":
        refuse("advantage loss_norm positions fraction updates_per_batch clip_low clip_high",
               "arm rejection has no advantage, ratio or choice of tokens")
    elif args.rollouts == 1:
        raise ValueError("--rollouts 1 means nothing here: one has no siblings")
    if ARMS[args.arm].order == "left_to_right":
        refuse("rollout_block_length", "left to right has none")
    if args.updates_per_batch == 1:
        refuse("clip_low clip_high", "--updates-per-batch 1 has ratio 1")
    if args.positions == "all":
        refuse("fraction", "--positions all takes every token")


def arm_of(args):
    rival = ARMS[args.arm]
    decoder = Decoder(rival.order, rival.select, block_length=args.rollout_block_length,
                      temperature=args.rollout_temperature)
    options = Options(args.advantage, args.loss_norm, args.positions, args.fraction,
                      args.clip_low, args.clip_high)
    kind = Rejection if args.arm == "rejection" else Variant
    return kind(decoder, args.arm, args.updates_per_batch, rival=rival, options=options)


def recipe_of(args):
    final_lr = args.grpo_lr if args.grpo_schedule == "constant" else 0.0
    return Recipe(args.grpo_steps, args.prompts, args.rollouts, args.grpo_lr, final_lr,
                  args.adam_eps, args.seed, train.first_rl_problem(args.seed))


@ends_quietly
def main(argv=None, task=None):
    """task: the base's, if it is a data.Task of your own."""
    parser, args = parse_flags(argv)
    with Run("arms.py", argv) as run:
        args.device = pick_device(args.device)
        task = train.open_task(args, task)
        check(parser, args, task)
        arm = arm_of(args)
        model = train.load_base(args, task)
        tables = {**train.TABLES, "log": [*train.TABLES["log"], "clipped"]}
        files = [args.data, args.test, f"{args.out}/base.pt"]
        run.begin(args.out, tables, train.settings_of(args, task, *files), args.resume,
                  name=f"{args.arm}-", files=[f"{args.arm}.pt", f"{args.arm}-texts.jsonl"])
        if run.finished:
            print(f"the run of {args.arm} in {args.out} is finished")
            return
        print(f"\n== {args.arm}: {ARMS[args.arm].text} ==")
        run.begin_act(args.arm)
        train.reinforce(args, run, task, model, arm, recipe_of(args))
        if run.stopped:
            return
        seconds = run.finish()
    print(f"\n{sum(seconds.values()):.0f} s; {args.out}/{args.arm}.pt")


if __name__ == "__main__":
    main()
