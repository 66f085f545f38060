"""What exactness costs, and what it need not: each way of working against the published one.

    python train.py                                          makes the checkpoints in out/
    python experiments/bench.py --csv assets/bench.csv       25 minutes on two cores
    python experiments/bench.py --quick                      under a minute, for a first look

Both sides of a row do the same work in this process, in turn, several times; ratio is the time of
the baseline over that of the contender, so more is better. First it is checked that they give the
same result; if not, the row is refused. The baselines are the published loops (grpo.py and
utils/generate.py of github.com/LeapLabTHU/JustGRPO), written again here from their description: as
published, but with all rollouts in one batch and no Python loop over rows.

    python experiments/bench.py --only ideas                 with and without each idea, alone
    python experiments/bench.py --profile                    where a step's time goes
    python experiments/bench.py --profile --code ../before   the same for another checkout"""
import argparse
import platform
import statistics
import sys
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
early.add_argument("--code", default=ROOT)
sys.path.insert(0, str(early.parse_known_args()[0].code))

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm
import sample
import train
from data import Toy
from eval_gsm8k import evaluate, print_table, write_csv
from grpo import advantages, grpo_loss, log_probs
from model import (MaskedDiffusionLM, ModelConfig, diffusion_loss, draw_masks, load_checkpoint,
                   rotate)
from sample import Decoder, generate, text_length

COLUMNS = ["what", "baseline", "contender", "rounds", "ratio_median", "ratio_min", "ratio_max"]

# ------------------------------------------------------------------------------------------------
# The baselines

def published_loss(model, prompt, completion, advantage, n_rows=128):
    """A forward and a backward for every position of every rollout, end-of-text and groups without
    advantage included. Their loss goes on after end-of-text; here those terms have weight 0, so
    that both sides have the same gradient for the same work as published."""
    P, L = prompt.shape[1], completion.shape[1]
    length = text_length(completion, model.config.eos_id)                      # (B,)
    for t in range(L):
        for x, y, a, n in zip(*(z.split(n_rows) for z in (prompt, completion, advantage, length))):
            hidden = torch.full_like(y[:, t:], model.config.mask_id)
            logits = model(torch.cat([x, y[:, :t], hidden], dim=1))            # (b, P+L, V)
            logp = logits[:, P + t].log_softmax(-1).gather(1, y[:, t:t + 1])[:, 0]
            ratio = (logp - logp.detach()).exp()
            loss = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
            yield (loss * (t < n)).sum() / length.sum()

def gumbel(temperature):
    """The published draw: float64 noise for each word of the vocabulary at each position."""
    def pick(logits):   # (B, S, V) -> (B, S)
        logits = logits.double()
        return (logits.exp() / (-torch.rand_like(logits).log()) ** temperature).argmax(-1)
    return pick

def inverse(temperature, uniform):
    """The draw of sample.py, from its noise: with it both sides must give the same tokens."""
    def pick(logits):
        u = uniform()                                                          # (B, L)
        p = (logits[:, -u.shape[1]:] / temperature).softmax(-1)
        cdf = p.cumsum(-1) / p.sum(-1, keepdim=True).clamp(min=1e-30)
        token = (cdf <= u[..., None]).sum(-1).clamp(max=p.shape[-1] - 1)
        return F.pad(token, (logits.shape[1] - u.shape[1], 0))
    return pick

def noise(prompts, length):     # uniform() for generate and inverse: the same numbers every time
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.rand(len(prompts), length, generator=generator).to(prompts.device)

@torch.no_grad()
def published_sampler(model, prompts, length, pick, block_length=1, by="drawn"):
    """One token a step until the canvas is full, the whole canvas of every row each time. by
    "drawn": the likeliest draw in the block stays (with blocks of 1: left to right). by "top": the
    position with the highest max p. -> (B, L)"""
    mask_id, P = model.config.mask_id, prompts.shape[1]
    x = F.pad(prompts, (0, length), value=mask_id)                             # (B, P+L)
    for step in range(length):
        logits = model(x)
        token, p = pick(logits), logits.softmax(-1)
        confidence = p.amax(-1) if by == "top" else p.gather(-1, token[..., None])[..., 0]
        end = P + (step // block_length + 1) * block_length
        confidence = confidence.masked_fill(x != mask_id, -1)
        confidence[:, end:] = -1
        at = confidence.argmax(1, keepdim=True)
        x = x.scatter(1, at, token.gather(1, at))
    return x[:, P:]

# ------------------------------------------------------------------------------------------------
# Comparing

class Bench:
    def __init__(self, args):
        self.args, self.rows, self.device = args, [], args.device

    def seconds(self, work):
        wait = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        wait()
        start = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - start

    def compare(self, what, baseline, contender, rounds, names=("published", "here"), scale=1,
                check=lambda: None):
        """Time the two in turn. scale: the contender does so many times the baseline's work.
        check() leaves the program if what they made is not the same."""
        contender()             # warm up
        if names[0] != "published":     # that is too long to be favoured by one run more
            baseline()
        times = []
        for _ in tqdm(range(rounds), desc=what, leave=False):
            times.append((self.seconds(baseline) * scale, self.seconds(contender)))
        check()
        ratios = [a / b for a, b in times]
        a, b = (statistics.median(t) for t in zip(*times))
        shown = f" (1/{scale} timed)" if scale > 1 else ""
        self.rows.append(dict(zip(COLUMNS, [
            what, f"{names[0]} {a:{'.3g' if a < 999 else ',.0f'}} s{shown}",
            f"{names[1]} {b:.3g} s", rounds,
            *(round(f(ratios), 2) for f in (statistics.median, min, max))])))
        if self.args.csv:
            write_csv(self.args.csv, COLUMNS, self.rows)

def same_gradient(model, one, other, tolerance=1e-5):
    def gradient(pieces):
        model.zero_grad()
        for piece in pieces:
            piece.backward()
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                          for p in model.parameters()]).double()
    a, b = gradient(one), gradient(other)
    model.zero_grad()
    if not (a.norm() > 0 and (a - b).norm() <= tolerance * a.norm()):   # nan is refused, too
        sys.exit(f"bench.py: refused: the gradients differ by {(a - b).norm() / a.norm():.1e}")

def same_tokens(model, prompts, length, decoder):
    """The published sampler and ours, from the same noise: the same text up to end-of-text."""
    ours = generate(model, prompts, length, decoder, noise(prompts, length)).tokens
    pick = inverse(decoder.temperature, noise(prompts, length))
    theirs = published_sampler(model, prompts, length, pick, *published(decoder, length))
    n = text_length(theirs, model.config.eos_id)[:, None]
    inside = torch.arange(length, device=n.device) < n                         # (B, L)
    wrong = ((ours != theirs) & inside).any(1).sum().item()
    # A draw within rounding of the border between two tokens may fall on either side of it.
    if wrong > len(prompts) / 500:
        sys.exit(f"bench.py: refused: {wrong} of {len(prompts)} texts differ ({decoder})")

def same_distribution(a, b):
    """Two lists of texts, one drawn with the published noise and one with ours: a chi-square test
    of homogeneity, texts seen fewer than ten times taken together. What is equal in truth is
    refused about once in 30,000 times (4 standard deviations of Wilson and Hilferty's root)."""
    a, b = Counter(a), Counter(b)
    cells = [(a[t], b[t]) for t in a | b if a[t] + b[t] >= 10]
    rest = [sum(c.values()) - sum(x[i] for x in cells) for i, c in enumerate((a, b))]
    cells += [rest] if sum(rest) else []
    n, m = sum(a.values()), sum(b.values())
    statistic = sum((x * (m / n) ** 0.5 - y * (n / m) ** 0.5) ** 2 / (x + y) for x, y in cells)
    df = len(cells) - 1
    if df and ((statistic / df) ** (1 / 3) - 1 + 2 / (9 * df)) / (2 / (9 * df)) ** 0.5 > 4:
        sys.exit(f"bench.py: refused: other texts, chi-square {statistic:.1f} with df {df}")

def published(decoder, length):     # -> block_length, by
    by = "top" if decoder.order == "top_probability" else "drawn"
    return 1 if decoder.order == "left_to_right" else decoder.block_length or length, by

# ------------------------------------------------------------------------------------------------
# The rows

def rl_problems(task, b):       # of the b-th batch: 16, each for 8 rollouts
    return [p for p in task.problems("train", 9_000_000 + b * 16, 16) for _ in range(8)]

def judged(task, problems, tokens):     # -> advantages (B,)
    reward = [task.reward(task.text(t), p["answer"]) for t, p in zip(tokens.cpu(), problems)]
    return advantages(torch.tensor(reward).view(16, 8)).flatten().to(tokens.device)

def rl_batches(bench, task, model, n):
    """n batches of 16 prompts x 8 rollouts: prompts (B, P), sample, advantages (B,)."""
    for b in range(n):
        problems = rl_problems(task, b)
        prompt = task.prompts([p["question"] for p in problems]).to(bench.device)
        sample = generate(model, prompt, task.completion_length,
                          Decoder("left_to_right", temperature=1.0),
                          noise(prompt, task.completion_length))
        yield prompt, sample, judged(task, problems, sample.tokens)

def rl_rows(bench, task, models):
    """One RL step's loss and its rollouts, from the base (the start) and from the trained model
    (the end). There few groups have a signal, and our time varies with them: all of eight batches
    are timed. Of the published loop, which takes equally long for each, one a round, scaled up."""
    quick, L = bench.args.quick, task.completion_length
    decoder = Decoder("left_to_right", temperature=1.0)
    for when, model in models.items():
        batches = list(rl_batches(bench, task, model, 1 if quick or when == "start" else 8))
        prompt, in_turn = batches[0][0], cycle(batches)
        def theirs(batches):
            return (l for x, y, a in batches for l in published_loss(model, x, y.tokens, a))
        def ours():
            return (l for x, y, a in batches for l in grpo_loss(model, x, y.tokens, y.rank, a))
        if not any(a.any() for _, _, a in batches):
            sys.exit(f"bench.py: at the {when} of training no group has a signal: no loss to time")
        same_gradient(model, theirs(batches), ours())
        several = f", {len(batches)} batches" * (len(batches) > 1)
        bench.compare(f"RL loss, forward and backward, at the {when} of training{several}",
                      lambda: [l.backward() for l in theirs([next(in_turn)])],
                      lambda: [l.backward() for l in ours()], 1 if quick else 5,
                      scale=len(batches))
        model.zero_grad()
        same_tokens(model, prompt, L, decoder)
        bench.compare(f"rollouts for RL, 16 prompts x 8, at the {when} of training",
                      lambda: published_sampler(model, prompt, L, gumbel(1.0)),
                      lambda: generate(model, prompt, L, decoder, noise(prompt, L)),
                      1 if quick else 7)

def pass_rows(bench, task, model):
    """pass@k of the base at T=0.6. The published sampler's time is the number of its rows times a
    constant: of many problems it samples only some, others in each round, and is scaled up."""
    quick, L = bench.args.quick, task.completion_length
    ltr, *others, _ = train.TRAP        # all but random order
    for decoder in [ltr] if quick else [ltr, *others]:
        for n, n_problems in [(64, 1), (64, 64), (1024, 1), (1024, 64)]:
            if quick and (n_problems, n) != (1, 64) or decoder is not ltr and (
                    (n_problems, n) not in [(64, 64), (1, 1024)]):
                continue
            timed = min(n_problems, max(1, 512 // n))       # of the problems, by the baseline
            problems, texts = task.held_out("test", n_problems), {}
            in_turn = cycle(problems)
            few = [p for p in problems[:max(1, 512 // n)] for _ in range(n)]
            same_tokens(model, task.prompts([p["question"] for p in few]).to(bench.device), L,
                        decoder)
            def theirs():
                rows = [p for p in islice(in_turn, timed) for _ in range(n)]
                prompts = task.prompts([p["question"] for p in rows]).to(bench.device)
                tokens = torch.cat([published_sampler(      # larger batches are slower, here
                    model, x, L, gumbel(decoder.temperature), *published(decoder, L))
                    for x in prompts.split(128)])
                texts["theirs"] = [task.text(t) for t in tokens.cpu()]
                for text, p in zip(texts["theirs"], rows):
                    task.reward(text, p["answer"])
            def ours():
                texts["ours"] = evaluate(model, task, problems, decoder, n, seed=1)["texts"][0]
            def check():        # what was drawn with different noise, for one problem
                if n_problems == 1:
                    same_distribution(texts["theirs"], texts["ours"])
            bench.compare(f"pass@{n}, {n_problems} problem{'s' * (n_problems > 1)}, {decoder}",
                          theirs, ours, 1 if quick else 3, scale=n_problems // timed, check=check)

class Products(TorchDispatchMode):
    """Records the matrix products of what runs inside it: shapes and strides of each pair."""
    def __init__(self):
        super().__init__()
        self.pairs = []

    def add(self, *pairs):
        self.pairs += [[(x.shape, x.stride()) for x in pair] for pair in pairs]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if name.startswith(("aten.mm.", "aten.bmm.")):
            self.add(args[:2])
        elif name.startswith(("aten.addmm.", "aten.baddbmm.")):
            self.add(args[1:3])
        elif "scaled_dot_product" in name:      # inside one kernel: 2 products, and 4 backward
            q, k, v = (x.flatten(0, 1) for x in args[1 if "backward" in name else 0:][:3])
            weights = q.new_empty(len(q), q.shape[1], k.shape[1])              # (B*H, W, S)
            self.add(*([(q, k.mT), (weights, v)] if "backward" not in name else [
                (weights.mT, q), (q, v.mT), (weights, k), (weights.mT, q)]))
        return function(*args, **(kwargs or {}))

    def replay(self, device="cpu"):     # -> a function that runs them alone, on other numbers
        tensors = [[torch.randn(1 + sum((n - 1) * step for n, step in zip(shape, strides)),
                                device=device).as_strided(shape, strides)
                    for shape, strides in pair] for pair in self.pairs]
        return lambda: [torch.matmul(a, b) for a, b in tensors]

class Pretraining:
    """One pretraining step as train.pretrain does it, in parts that can be timed."""
    def __init__(self, task, device):
        torch.manual_seed(0)
        config = ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id, max_length=56)
        self.task, self.model, self.step = task, MaskedDiffusionLM(config).to(device), 0
        matrices = [p for p in self.model.blocks.parameters() if p.ndim == 2]
        rest = [p for p in self.model.parameters() if all(p is not m for m in matrices)]
        self.muon = torch.optim.Muon(matrices, lr=0.006, momentum=0.95, weight_decay=0.01)
        self.adamw = torch.optim.AdamW(rest, lr=0.003, betas=(0.9, 0.98))

    def data(self):
        problems = self.task.problems("train", self.step * 64, 64)
        device = self.model.cos.device
        self.prompt = self.task.prompts([p["question"] for p in problems]).to(device)
        self.completion = self.task.completions([p["solution"] for p in problems]).to(device)
        self.step += 1

    def forward(self):
        self.loss = diffusion_loss(self.model, self.prompt, self.completion,
                                   *draw_masks(*self.completion.shape))
    def backward(self):
        self.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)

    # train.py lifts Muon from bfloat16 to float32; before, it did not.
    def orthogonal(self, lifted=hasattr(train, "patch")):
        kind = torch.Tensor.float if lifted else torch.Tensor.bfloat16
        with patch.object(torch.Tensor, "bfloat16", kind):
            self.muon.step()

    def parts(self):
        return {"data": self.data, "forward": self.forward, "backward": self.backward,
                "Muon": self.orthogonal, "AdamW": self.adamw.step}

    def whole(self):
        for part in self.parts().values():
            part()
        self.model.zero_grad()

# ------------------------------------------------------------------------------------------------
# Each idea by itself: with it (the contender) and without

class Everywhere(torch.nn.Module):
    """The network without `wanted`: the last layer and the head at every position."""
    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, tokens, wanted):
        return self.model(tokens)[wanted]

class FromTable(torch.nn.Module):
    """Stands in for the first block: queries, keys and values of a token are the same wherever it
    stands, so they are looked up in a table with a row for each word of the vocabulary."""
    def __init__(self, model):
        super().__init__()
        self.block, self.wte, self.tokens = model.blocks[0], model.wte, None
        model.register_forward_pre_hook(lambda m, args: setattr(self, "tokens", args[0]))

    def forward(self, x, cos, sin, wanted=None):
        b, h = self.block, self.block.attn_norm(self.wte.weight)               # (V, C)
        q, k, v = (F.embedding(self.tokens, f(h)).unflatten(-1, (b.n_head, -1)).transpose(1, 2)
                   for f in (b.q_proj, b.k_proj, b.v_proj))
        h = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + b.attn_out(h.transpose(1, 2).flatten(-2))
        h = b.ff_norm(x)
        return x + b.ff_out(F.silu(b.ff_proj(h)) * b.up_proj(h))

def written_out(q, k, v):
    return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v

def counted(logp, temperature, which, u):   # sample.draw without the binary search
    cdf = (logp / temperature).softmax(-1).cumsum(-1)[which]                   # (m, V)
    return (cdf / cdf[:, -1:] <= u[:, None]).sum(-1)

def idea_rows(bench, task, out):
    """Kept is what brings 10 % to a whole row. Every variant is a copy of the base."""
    def base():
        return load_checkpoint(f"{out}/base.pt", bench.device)[0]
    plain, table, L = base(), base(), task.completion_length
    table.blocks[0] = FromTable(table)
    x, y, a = next(rl_batches(bench, task, plain, 1))
    trained = load_checkpoint(f"{out}/justgrpo.pt", bench.device)[0]
    late = list(rl_batches(bench, task, trained, 4))
    step = Pretraining(task, bench.device)
    step.data()
    t, is_masked = draw_masks(*step.completion.shape)

    def pretraining(model, n=1, bfloat16=False):
        for part in zip(*(z.chunk(n) for z in (step.prompt, step.completion, t, is_masked))):
            with torch.autocast(bench.device, torch.bfloat16, enabled=bfloat16):
                loss = diffusion_loss(model, *part) / n
            loss.backward()
        model.zero_grad()
    def loss(model, x=x, y=y, a=a):
        for piece in grpo_loss(model, x, y.tokens, y.rank, a):
            piece.backward()
        model.zero_grad()
    def loss_of_all_terms(model, x=x, y=y, a=a):    # of the groups that do not agree
        i = a.nonzero()[:, 0]
        for row, _, logp in log_probs(model, x[i], y.tokens[i], y.rank[i]):
            (-(a[i][row] * logp).sum() / (y.rank < L).sum()).backward()
        model.zero_grad()
    def rollouts(model):
        generate(model, x, L, Decoder("left_to_right", temperature=1.0), noise(x, L))
    def pass_1024(distinct=sample.distinct, draw=sample.draw):
        with patch.multiple(sample, distinct=distinct, draw=draw):
            evaluate(plain, task, task.held_out("test", 1),
                     Decoder("confidence", temperature=0.6), 1024)
    def no_sdpa():
        with patch.object(F, "scaled_dot_product_attention", written_out):
            pretraining(plain)
    def compare(what, without, with_it, rounds=9):
        bench.compare(what, without, with_it, rounds, ("without", "with"))

    same_gradient(plain, grpo_loss(plain, x, y.tokens, y.rank, a),
                  grpo_loss(Everywhere(plain), x, y.tokens, y.rank, a))
    copied = grpo_loss(table, x, y.tokens, y.rank, a)
    value = sum(piece.item() for piece in grpo_loss(plain, x, y.tokens, y.rank, a))
    if abs(value - sum(piece.item() for piece in copied)) > 1e-5 * abs(value):
        sys.exit("bench.py: refused: another loss from the table")
    for name, work in (("pretraining", pretraining), ("RL loss", loss), ("rollouts", rollouts)):
        compare(f"{name}: last layer and head only where wanted",
                lambda: work(Everywhere(plain)), lambda: work(plain))
        compare(f"{name}: first layer's queries, keys, values from a table",
                lambda: work(plain), lambda: work(table))
    compare("RL loss at the start: no term without weight", lambda: loss_of_all_terms(plain),
            lambda: loss(plain))
    compare("RL loss at the end: no term without weight",
            lambda: [loss_of_all_terms(trained, *batch) for batch in late],
            lambda: [loss(trained, *batch) for batch in late])
    compare("pass@1024, confidence: rows told apart by a hash", lambda: pass_1024(
        distinct=lambda rows: rows.unique(dim=0, return_inverse=True)), pass_1024)
    compare("pass@1024, confidence: draws by binary search", lambda: pass_1024(draw=counted),
            pass_1024)
    step.forward()
    step.backward()
    compare("Muon's step: float32 instead of bfloat16",
            lambda: step.orthogonal(lifted=False), lambda: step.orthogonal(lifted=True), 5)
    compare("pretraining: attention written out", lambda: pretraining(plain), no_sdpa)
    compare("pretraining: in two halves, gradients added", lambda: pretraining(plain),
            lambda: pretraining(plain, 2))
    compare("pretraining: bfloat16 autocast", lambda: pretraining(plain),
            lambda: pretraining(plain, bfloat16=True), 3)
    if not bench.args.quick:
        compiled, start = base(), time.perf_counter()
        for i, block in enumerate(compiled.blocks[:-1]):
            compiled.blocks[i] = torch.compile(block)
        pretraining(compiled)
        seconds = time.perf_counter() - start
        compare(f"pretraining: torch.compile of all layers but the last, {seconds:.0f} s of it",
                lambda: pretraining(plain), lambda: pretraining(compiled))

def profile(bench, task, models):
    """Median milliseconds of each part of a pretraining step, and of an RL step by the base."""
    step, model, times = Pretraining(task, bench.device), models["start"], {}
    def timed(name, parts):
        for part, work in parts.items():
            times.setdefault(name, {}).setdefault(part, []).append(bench.seconds(work))
    for _ in range(5 if bench.args.quick else 25):
        timed("pretraining", step.parts())
        step.model.zero_grad()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    for i in range(2 if bench.args.quick else 8):
        problems, here = rl_problems(task, i), {}
        def prompts():
            here["x"] = task.prompts([p["question"] for p in problems]).to(bench.device)
        def rollouts():
            here["y"] = generate(model, here["x"], task.completion_length,
                                 Decoder("left_to_right", temperature=1.0))
        def reward():
            here["a"] = judged(task, problems, here["y"].tokens)
        def loss():
            for piece in grpo_loss(model, here["x"], here["y"].tokens, here["y"].rank, here["a"]):
                piece.backward()
        timed("RL", {f.__name__: f for f in (prompts, rollouts, reward, loss, optimizer.step)})
        optimizer.zero_grad()
    columns = ["step", "part", "ms", "share"]
    rows = [[name, *line] for name in times for line in summary(times[name])]
    print_table(columns, rows)
    if bench.args.csv:
        write_csv(bench.args.csv, columns, [dict(zip(columns, row)) for row in rows])

def summary(times):     # part -> seconds; -> part, ms, share
    medians = {part: statistics.median(t) for part, t in times.items()}
    whole = sum(medians.values())
    for part, t in [*medians.items(), ("all", whole)]:
        yield part, f"{1000 * t:.1f}", f"{t / whole:.0%}"

def main(argv=None):
    parser = argparse.ArgumentParser(description="Time each way of working against the published.")
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of a few rows, under a minute")
    add("--csv", help="write the rows to this file, each as soon as it is there")
    add("--out", default="out", help="folder with train.py's base.pt and justgrpo.pt")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, help="of the CPU; default: torch's own choice")
    add("--only", choices=["RL", "pass", "pretraining", "ideas"],
        help="only these rows (and the file of --csv has no others); ideas: each idea alone")
    add("--profile", action="store_true", help="where the time of a step goes, instead")
    add("--code", default=ROOT, help="with --profile: of another checkout of this repository")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        models = {when: load_checkpoint(f"{args.out}/{name}.pt", args.device)[0]
                  for when, name in (("start", "base"), ("end", "justgrpo"))}
        if args.csv:
            write_csv(args.csv, COLUMNS, [])        # fails now, if it must
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"{args.device if args.device == 'cpu' else torch.cuda.get_device_name()}")
    bench, task = Bench(args), Toy()
    if args.profile:
        return profile(bench, task, models)
    if args.only in (None, "RL"):
        rl_rows(bench, task, models)
    if args.only in (None, "pass"):
        pass_rows(bench, task, models["start"])
    if args.only == "ideas":
        idea_rows(bench, task, args.out)
    if args.only in (None, "pretraining"):
        step = Pretraining(task, args.device)
        step.whole()
        with Products() as products:
            step.whole()
        bench.compare("a pretraining step against its matrix products", step.whole,
                      products.replay(args.device), 5 if args.quick else 25, ("step", "products"))
    print_table(COLUMNS, [[row[c] for c in COLUMNS] for row in bench.rows])

def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

if __name__ == "__main__":
    main()
