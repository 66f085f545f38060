"""What exactness costs, and what it need not: this code against the published loops.

    python train.py                                 makes the checkpoints in out/
    python experiments/bench.py --csv bench.csv     a quarter of an hour on two cores
    python experiments/bench.py --quick             a minute, for a first look

Both sides of a row do the same work in this process, in turn, several times; ratio is
the time of the published loop over ours, so more is better. First both are checked to
give the same result; if not, the row is refused. The published loops (grpo.py and
utils/generate.py of github.com/LeapLabTHU/JustGRPO) are written again here from their
description: as published, but without a loop over rows: all rollouts of an RL step
are one batch, those of pass@k batches of 128.

Legend: B rows, b of them run together, P prompt, L completion, S = P + L, V vocabulary.
"""
import argparse
import platform
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import Worksheet
from eval_gsm8k import evaluate, print_table
from grpo import advantages, judge, policy_losses
from runs import ends_quietly, may_write, write_csv
from sample import Decoder, generate, load_checkpoint, pick_device, text_length
from train import TRAP

COLUMNS = ["what", "baseline", "contender", "rounds", "ratio_median", "ratio_min",
           "ratio_max"]
ROLLOUT = Decoder("left_to_right", temperature=1.0)

# ----------------------------------------------------------------------------------------
# the published loops


def published_losses(model, prompt, tokens, rank, advantage, batch=128):
    """As grpo.policy_losses, by a forward (and a backward) for every position of every
    rollout, end-of-text and groups without advantage included; always left to right.

    Theirs goes on after end-of-text; here those terms have weight 0, so that both sides
    have the same gradient for the same work as published.
    """
    length = text_length(tokens, model.config.eos_id)                           # (B,)
    rows = [tensor.split(batch) for tensor in (prompt, tokens, advantage, length)]
    for position in range(tokens.shape[1]):
        for x, y, a, n in zip(*rows):
            hidden = torch.full_like(y[:, position:], model.config.mask_id)
            logits = model(torch.cat([x, y[:, :position], hidden], dim=1))     # (b, S, V)
            logp = logits[:, x.shape[1] + position].log_softmax(-1)             # (b, V)
            logp = logp.gather(1, y[:, position:position + 1])[:, 0]            # (b,)
            ratio = (logp - logp.detach()).exp()
            loss = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
            yield (loss * (position < n)).sum() / length.sum()


def gumbel(temperature):
    """The published draw: float64 noise for each word of the vocabulary everywhere."""
    def pick(logits):
        """(B, S, V) -> (B, S)"""
        logits = logits.double()
        return (logits.exp() / (-torch.rand_like(logits).log()) ** temperature).argmax(-1)

    return pick


def inverse(temperature, uniform):
    """The draw of sample.py, from its noise: both sides must give the same tokens."""
    def pick(logits):
        """(B, S, V) -> (B, S)"""
        u = uniform()                                                           # (B, L)
        p = (logits[:, -u.shape[1]:] / temperature).softmax(-1)                # (B, L, V)
        cdf = p.cumsum(-1) / p.sum(-1, keepdim=True).clamp(min=1e-30)
        token = (cdf <= u[..., None]).sum(-1).clamp(max=p.shape[-1] - 1)        # (B, L)
        return F.pad(token, (logits.shape[1] - u.shape[1], 0))

    return pick


# order: whether a position is chosen by its draw's probability, or by the highest there.
PUBLISHED = {"left_to_right": "drawn", "confidence": "drawn", "top_probability": "top"}


@torch.no_grad()
def published_sampler(model, prompts, length, decoder, pick):
    """One token a step until the canvas is full, the whole canvas of every row each time:
    the best position of the block stays (blocks of 1: left to right). Returns (B, L)."""
    mask_id, start = model.config.mask_id, prompts.shape[1]
    block_length = decoder.block_length or length
    if decoder.order == "left_to_right":
        block_length = 1
    canvas = F.pad(prompts, (0, length), value=mask_id)                         # (B, S)
    for step in range(length):
        logits = model(canvas)                                                 # (B, S, V)
        token, p = pick(logits), logits.softmax(-1)
        if PUBLISHED[decoder.order] == "top":
            score = p.amax(-1)                                                  # (B, S)
        else:
            score = p.gather(-1, token[..., None])[..., 0]
        score = score.masked_fill(canvas != mask_id, -1)
        score[:, start + (step // block_length + 1) * block_length:] = -1
        best = score.argmax(1, keepdim=True)                                    # (B, 1)
        canvas = canvas.scatter(1, best, token.gather(1, best))
    return canvas[:, start:]


def noise(prompts, length):
    """uniform() for generate and inverse: the same numbers every time."""
    generator, n, device = torch.Generator().manual_seed(0), len(prompts), prompts.device
    return lambda: torch.rand(n, length, generator=generator).to(device)

# ----------------------------------------------------------------------------------------
# checks: they leave the program if the two sides do not make the same


def refuse(reason):
    sys.exit(f"bench.py: refused: {reason}")


def same_gradient(one, other, tolerance=1e-5):
    difference = (one - other).norm() / one.norm()
    if not difference <= tolerance:     # nan is refused, too
        refuse(f"the gradients differ by {difference:.1e}")


def same_tokens(tokens, others, eos_id):
    """(B, L) twice: the same text up to end-of-text. A draw within rounding of the border
    between two tokens may fall on either side of it: one text in 500 may differ."""
    n = text_length(others, eos_id)[:, None]
    inside = torch.arange(others.shape[1], device=n.device) < n                 # (B, L)
    n_wrong = int(((tokens != others) & inside).any(1).sum())
    if n_wrong > len(tokens) / 500:
        refuse(f"{n_wrong} of {len(tokens)} texts differ")

# ----------------------------------------------------------------------------------------
# rows


class Bench:
    """The rows so far, and the time of two sides of the next one."""

    def __init__(self, quick, device, csv):
        self.quick, self.device, self.csv = quick, device, csv
        self.task, self.rows = Worksheet(), []

    def seconds(self, work):
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def compare(self, what, published, ours, rounds, scale=1):
        """Time the two in turn. scale: ours does so many times the work of the published."""
        ours()      # warm up; theirs is too long to be favoured by one run more
        times = []
        for _ in tqdm(range(1 if self.quick else rounds), desc=what, leave=False):
            times.append((self.seconds(published) * scale, self.seconds(ours)))
        theirs, here = [statistics.median(side) for side in zip(*times)]
        part = f" (1/{scale} timed)" if scale > 1 else ""
        ratios = [baseline / contender for baseline, contender in times]
        summary = [round(f(ratios), 2) for f in (statistics.median, min, max)]
        self.add(what, f"published {number(theirs)} s{part}", f"here {number(here)} s",
                 len(times), *summary)

    def add(self, *row):
        """A row, of which the last columns may be missing."""
        row = list(row) + [""] * (len(COLUMNS) - len(row))
        self.rows.append(dict(zip(COLUMNS, row)))
        if self.csv:
            write_csv(self.csv, COLUMNS, self.rows)

    def prompts(self, problems):
        return self.task.prompts([p["question"] for p in problems]).to(self.device)


def number(seconds):
    return f"{seconds:,.0f}" if seconds > 999 else f"{seconds:.3g}"


def rl_rows(bench, model, when):
    """One RL step's loss and its rollouts, from the base (at the start of training) or
    from the trained model (at the end). There few groups have a signal, and our time
    varies with them: all of eight batches are timed. Of the published loop, which takes
    equally long for each, one a round, scaled up."""
    what = f"RL loss, forward and backward, at the {when} of training"
    n_batches = 1
    if when == "end" and not bench.quick:
        what, n_batches = f"{what}, 8 batches", 8
    batches = [rl_batch(bench, model, number) for number in range(n_batches)]
    if any(advantage.any() for *_, advantage in batches):
        same_gradient(gradient(model, published_losses, batches),
                      gradient(model, policy_losses, batches))
        in_turn = cycle(batches)
        bench.compare(what, lambda: gradient(model, published_losses, [next(in_turn)]),
                      lambda: gradient(model, policy_losses, batches), 5, scale=n_batches)
    else:       # after a training that has solved everything
        bench.add(what, "not timed: no group has a signal", "nothing to do here", 0)

    prompt, length = batches[0][0], bench.task.completion_length
    check_sampler(bench, model, prompt, ROLLOUT)
    bench.compare(
        f"rollouts for RL, 16 prompts x 8, at the {when} of training",
        lambda: published_sampler(model, prompt, length, ROLLOUT, gumbel(1.0)),
        lambda: generate(model, prompt, length, ROLLOUT, noise(prompt, length)), 7)


def rl_batch(bench, model, number):
    """16 prompts x 8 rollouts: prompts (B, P), tokens, rank (B, L), advantages (B,)."""
    problems = bench.task.problems("train", 9_000_000 + number * 16, 16)
    problems = [problem for problem in problems for _ in range(8)]
    prompt, length = bench.prompts(problems), bench.task.completion_length
    sample = generate(model, prompt, length, ROLLOUT, noise(prompt, length))
    advantage = advantages(judge(bench.task, sample, problems).view(16, 8)).flatten()
    return prompt, sample.tokens, sample.rank, advantage.to(prompt.device)


def gradient(model, losses, batches):
    """Of the sum of these losses, as one vector."""
    model.zero_grad(set_to_none=False)
    for batch in batches:
        for loss in losses(model, *batch):
            loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def check_sampler(bench, model, prompts, decoder):
    """The published sampler and ours, from the same noise."""
    length = bench.task.completion_length
    ours = generate(model, prompts, length, decoder, noise(prompts, length)).tokens
    pick = inverse(decoder.temperature, noise(prompts, length))
    theirs = published_sampler(model, prompts, length, decoder, pick)
    same_tokens(ours, theirs, model.config.eos_id)


def pass_rows(bench, model):
    """pass@n of the base at T=0.6, in the orders that were published."""
    decoders = [decoder for decoder in TRAP.values() if decoder.order in PUBLISHED]
    sizes = [(64, 1), (64, 64), (1024, 1), (1024, 64)]
    if bench.quick:
        decoders, sizes = decoders[:1], sizes[:1]
    for decoder in decoders:
        for n, n_problems in sizes:
            pass_row(bench, model, decoder, n, n_problems)


def pass_row(bench, model, decoder, n, n_problems):
    """The published sampler's time is its number of rows times a constant: of many
    problems it samples only some, others in each round, and is scaled up."""
    task, length = bench.task, bench.task.completion_length
    problems = task.held_out("test", n_problems)
    n_timed = min(n_problems, max(1, 512 // n))
    in_turn = cycle(problems)
    pick = gumbel(decoder.temperature)
    def published():
        rows = [problem for problem in islice(in_turn, n_timed) for _ in range(n)]
        batches = bench.prompts(rows).split(128)        # larger ones are slower, here
        tokens = torch.cat([published_sampler(model, some, length, decoder, pick)
                            for some in batches])
        for row, problem in zip(tokens.cpu(), rows):
            task.is_right(task.text(row), problem["answer"])

    def ours():
        evaluate(model, task, problems, decoder, n, seed=1)

    some = [problem for problem in problems[:n_timed] for _ in range(n)]
    check_sampler(bench, model, bench.prompts(some), decoder)
    plural = "s" if n_problems > 1 else ""
    bench.compare(f"pass@{n}, {n_problems} problem{plural}, {decoder}", published, ours,
                  3, scale=n_problems // n_timed)


@ends_quietly
def main(argv=None):
    parser = argparse.ArgumentParser(description="This code against the published loops.")
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of a few rows, under a minute")
    add("--csv", help="write the rows to this file, each as soon as it is there")
    add("--out", default="out", help="folder with train.py's base.pt and justgrpo.pt")
    add("--device", default="cpu", help="cpu or cuda")
    add("--only", choices=["RL", "pass"], help="only the rows of RL, or of pass@k")
    args = parser.parse_args(argv)
    try:
        device = pick_device(args.device)
        models = {when: load_checkpoint(f"{args.out}/{name}.pt", device)[0]
                  for when, name in (("start", "base"), ("end", "justgrpo"))}
        if args.csv:
            may_write(args.csv, COLUMNS)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{platform.platform()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, {device}")
    bench = Bench(args.quick, device, args.csv)
    if args.only != "pass":
        for when, model in models.items():
            rl_rows(bench, model, when)
    if args.only != "RL":
        pass_rows(bench, models["start"])
    print_table(COLUMNS, [row.values() for row in bench.rows])


if __name__ == "__main__":
    main()
