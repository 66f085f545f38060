"""The whole story in four acts: the task, pretraining, the flexibility trap, JustGRPO.

    python train.py             about 6 minutes on two CPU cores
    python train.py --quick     under a minute, for a first look; its numbers mean little
    python train.py --data train.jsonl --test test.jsonl      the same on the real GSM8K

Leaves in --out: base.pt, justgrpo.pt (checkpoints), log.csv (training), results.csv (accuracies),
measures.csv (everything else), summary.json, and progress.png if matplotlib is installed.

What differs from JustGRPO (arXiv 2601.15165) beyond size: grpo.py lists it. Same seed and thread
count on a CPU: the same files, times apart. On a GPU nothing is promised beyond the seed.
"""
import csv
import json
import os
import platform
import sys
import time
from collections import Counter

import numpy as np
import torch
from tqdm import tqdm

from data import GSM8K, Toy, load_task
from eval_gsm8k import (MEASURE_COLUMNS, RESULT_COLUMNS, bootstrap, evaluate, pass_at_k, print_table,
                        result_rows, write_csv)
from grpo import advantages, grpo_loss
from model import (MaskedDiffusionLM, ModelConfig, diffusion_loss, draw_masks, load_checkpoint,
                   save_checkpoint, write_whole)
from sample import Decoder, Parser, generate, pick_device

# The few numbers worth turning; --quick and --data have their own.
TOY = dict(steps=1600, batch=64, lr=0.006, width=128, layers=3, grpo_steps=20, prompts=16, rollouts=8,
           grpo_lr=5e-5, problems=400, trap_problems=64, samples=32)
QUICK = dict(TOY, steps=60, batch=32, width=64, layers=2, grpo_steps=3, prompts=4, rollouts=4,
             problems=32, trap_problems=8, samples=8)
REAL = dict(TOY, steps=2000, batch=16, width=192, layers=4, grpo_steps=4, prompts=4, rollouts=8,
            problems=100, trap_problems=16, samples=8)
REAL_QUICK = dict(QUICK, steps=10, batch=8, grpo_steps=1, prompts=1, problems=2, trap_problems=1, samples=2)
SHAPE = dict(n_merges=1792, prompt_length=144, completion_length=144)    # GSM8K only

TRAP = [Decoder(order, block_length=block, temperature=0.6) for order, block in
        [("left_to_right", None), ("confidence", None), ("confidence", 8), ("top_probability", None),
         ("random", None)]]
GREEDY = [Decoder(), Decoder("confidence"), Decoder("confidence", block_length=8)] + [
    Decoder("top_probability", select, value) for select, value in
    [("threshold", 0.9), ("entropy_bound", 0.1), ("k", 2), ("k", 4)]]
LOG_COLUMNS = ("stage,step,loss,tokens_per_second,reward,signal,entropy,left_to_right,confidence,"
               "threshold,seconds").split(",")
TABLES = {"log": LOG_COLUMNS, "results": RESULT_COLUMNS, "measures": MEASURE_COLUMNS}
SEED_STRIDE = 10**7     # training problems of seed s are those from s * SEED_STRIDE on


def label(d):
    block = f"blocks of {d.block_length}" if d.block_length else "one block"
    block = "" if d.order in ("left_to_right", "random") else ", " + block
    return d.order + block + ("" if d.selection == "k=1" else f", {d.selection}")


# ---------------------------------------------------------------------------------------- act 1

def show_task(args, task):
    print("\n== Act 1: the task ==")
    for problem in task.problems("test", 0, 3):
        print("\n  " + problem["question"].strip())
        texts = [problem["solution"]] if not task.n_steps else [
            mark_forks(task, task.solution(problem, n)) for n in (task.n_steps, 0)]
        for text in texts:
            print("    " + text.strip().replace("\n", "\n    "))
    print(f"\n  prompt {task.prompt_length} tokens, completion {task.completion_length}, vocabulary "
          f"{task.tokenizer.n_vocab}; seed {args.seed}")
    print("  problems: " + ", ".join(f"{s} {task.size(s) or 'endless'}"
                                      for s in ("train", "validation", "test")) + "; no overlap")
    for split, count in getattr(task, "too_long", {}).items():
        print(f"  {count} {split} rows are too long for this canvas and left out")
    if task.n_steps:
        print("Look at the bars: there the text either goes on or jumps to the answer; both are right.")
    else:
        print("Where this task forks is not known: what needs that (act 2's probes, bypass and entropy "
              "at forks) is left out.")


def mark_forks(task, text):
    ids = task.completions([text])
    return "".join(("|" if fork else "") + task.text([i]) for i, fork in zip(ids[0], task.forks(ids)[0]))


# ---------------------------------------------------------------------------------------- act 2

def optimizers_for(model, lr):
    """Muon on the blocks' matrices, AdamW on the rest (embedding, head, norms)."""
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(rest, lr=lr / 2, betas=(0.9, 0.98), weight_decay=0.0)]


def pretrain(args, task, tables):
    print("\n== Act 2: pretraining a masked-diffusion model from scratch ==")
    torch.manual_seed(args.seed)
    config = ModelConfig(task.tokenizer.n_vocab, task.mask_id, task.eos_id,
                         max_length=2 * task.prompt_length + task.completion_length,
                         n_layer=args.layers, n_embd=args.width, n_hidden=3 * args.width)
    model = MaskedDiffusionLM(config).to(args.device)
    print(f"  {sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters, on {args.device}")
    optimizers = optimizers_for(model, args.lr)
    peaks = [o.param_groups[0]["lr"] for o in optimizers]
    generator = torch.Generator().manual_seed(args.seed)
    canvas, average = task.prompt_length + task.completion_length, None
    bar, start = tqdm(range(args.steps), desc="pretraining"), time.time()
    for step in bar:
        problems = task.problems("train", args.seed * SEED_STRIDE + step * args.batch, args.batch)
        prompt = task.prompts([p["question"] for p in problems]).to(args.device)          # (B, P)
        completion = task.completions([p["solution"] for p in problems]).to(args.device)  # (B, L)
        t, is_masked = (x.to(args.device) for x in draw_masks(*completion.shape, generator))
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = diffusion_loss(model, prompt, completion, t, is_masked)
        loss.backward()
        # Warm up over 50 steps, hold, fall to zero over the last half.
        scale = min((step + 1) / 50, 1, (args.steps - step) / (args.steps / 2))
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad()
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        if (step + 1) % 20 == 0 or step + 1 == args.steps:
            speed = (step + 1) * args.batch * canvas / (time.time() - start)
            bar.set_postfix_str(f"loss {average:.3f}, {speed:,.0f} tokens/s")
            tables["log"].append({"stage": "base", "step": step + 1, "loss": round(average, 5),
                                  "tokens_per_second": round(speed),
                                  "seconds": round(time.time() - start, 2)})
            save_tables(args, tables, "log")
    model.eval()
    probe(args, task, model, tables)
    save_checkpoint(f"{args.out}/base.pt", model, task.describe(), stage="base", seed=args.seed)
    return model


def probe(args, task, model, tables):
    """What the base can do, on test problems: held-out loss, and design's three numbers."""
    problems = task.problems("test" if task.size("test") is None else "validation", 0, args.problems)
    prompt = task.prompts([p["question"] for p in problems]).to(args.device)
    completion = task.completions([p["solution"] for p in problems]).to(args.device)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = ((x.to(args.device) for x in draw_masks(*completion.shape, generator)) for _ in range(8))
        nll = np.mean([float(diffusion_loss(model, prompt, completion, *draw)) for draw in draws])
    rows = {"masked_nll": nll}
    print(f"  held-out masked NLL {nll:.3f} nats a token, over {len(problems)} problems")
    common = Counter(p["answer"] for p in task.problems("train", 0, 5000)).most_common(1)[0][0]
    test = task.problems("test", 0, args.problems)
    rows["majority_answer"] = np.mean([p["answer"] == common for p in test])
    print(f"  always answering {common} would be right {rows['majority_answer']:.1%} of the time")
    if task.n_steps:
        rows.update(probe_steps(args, task, model, problems, prompt))
    tables["measures"] += [{"stage": "base", "measure": k, "value": round(float(v), 5), "seed": args.seed}
                           for k, v in rows.items()]
    save_tables(args, tables, "measures")
    values = [v for k, v in rows.items() if k.startswith("next_value")]
    if values and np.mean(values) < 0.95:
        message = (f"after a correct prefix the next value is right only {np.mean(values):.1%} of the time;"
                   " the rest of the story needs 95 %: raise --steps (or --batch)")
        if not args.quick:
            raise ValueError(message)
        print(f"  note: {message}; --quick goes on regardless")


@torch.no_grad()
def probe_steps(args, task, model, problems, prompt):
    """Next value given a correct prefix; P(go on) at each fork; the answer by steps written."""
    def predict(n_written, at):     # probabilities at position `at`, the text before it given
        text = task.completions([task.solution(p, n_written) for p in problems]).to(args.device)
        visible = text.clone()
        visible[:, at:] = task.mask_id
        p = model(torch.cat([prompt, visible], dim=1))[:, task.prompt_length + at].softmax(-1)
        return p, (p.argmax(-1) == text[:, at]).float().mean().item()
    n, forks = task.n_steps, [task.fork_position(s) for s in range(task.n_steps + 1)]
    value = [predict(n, 3 * s + 3)[1] for s in range(n)]
    go_on = [1 - predict(n, forks[s])[0][:, task.hash_id].mean().item() for s in range(n)]
    head = [predict(s, forks[s] + 1)[1] for s in range(n + 1)]
    true = [1 - task.direct] + [1 - task.skip] * (n - 1)
    print_table(["at step", *range(n + 1)], [
        ["next value right, given a correct prefix", *(f"{v:.3f}" for v in value), ""],
        ["P(go on) at the fork", *(f"{v:.3f}" for v in go_on), ""],
        ["   its true rate", *(f"{v:.3f}" for v in true), ""],
        ["answer right after that many steps", *(f"{v:.3f}" for v in head)]])
    print("Look at the last row: without the steps the answer is mostly a guess.")
    named = (("next_value", value), ("go_on", go_on), ("answer_in_head", head))
    return {f"{name}_{s}": v for name, vs in named for s, v in enumerate(vs)}


# ---------------------------------------------------------------------------------------- act 3

def trap(args, task, model, tables, stage="base"):
    """pass@k of every order; prints the table and says what it shows."""
    problems = task.problems("test", 0, args.trap_problems)
    ks = [2**i for i in range(20) if 2**i <= args.samples]
    table, scores = [], {}
    for decoder in TRAP:
        result = evaluate(model, task, problems, decoder, args.samples, args.seed, name=label(decoder))
        rows, measures = result_rows(stage, decoder, result, args.seed, ks)
        tables["results"] += rows
        tables["measures"] += measures
        save_tables(args, tables, "results", "measures")
        scores[label(decoder)] = {k: pass_at_k(result["correct"], k) for k in ks}
        m = {row["measure"]: row["value"] for row in measures}
        table.append([label(decoder), *(f"{r['value']:.3f}" for r in rows), f"{m['distinct']:.1f}"] + [
            f"{m[name]:.2f}" for name in ("bypass_fork", "entropy_fork") if task.n_steps])
        table.append(["   95 % interval", *(f"{r['low']:.2f}-{r['high']:.2f}" for r in rows)]
                     + [""] * (3 if task.n_steps else 1))
    print_table(["pass@k, k =", *ks, "distinct"] + ["bypassed", "entropy"] * bool(task.n_steps), table)
    for name in list(scores)[1:4]:
        print("  " + crossing(scores["left_to_right"], scores[name], name))
    return scores


def crossing(ltr, other, name):
    """One sentence, computed: is there a crossing, at which k, are both sides of it clear of zero?"""
    ks = list(ltr)
    lead = {k: bootstrap(ltr[k] - other[k]) for k in ks}    # paired: the same problems

    def say(k):
        value, low, high = lead[k]
        clear = "clear of zero" if low > 0 or high < 0 else "not clear of zero"
        return f"{value:+.3f} at k={k} [{low:+.3f}, {high:+.3f}], {clear}"
    over = next((k for k in ks if lead[k][0] > 0), None)
    if over is None:
        return f"{name}: no crossing, left to right is never ahead ({say(ks[-1])})."
    if over == ks[0]:
        best = max(ks, key=lambda k: lead[k][0])
        return (f"{name}: no crossing, left to right is ahead from the first sample on ({say(ks[0])}; "
                f"most {say(best)}).")
    return (f"{name}: left to right overtakes it at k={over} ({say(ks[0])}; {say(over)}; "
            f"{say(ks[-1])}).")


# ---------------------------------------------------------------------------------------- act 4

def greedy(args, task, model, tables, stage):
    problems, results = task.problems("test", 0, args.problems), {}
    for decoder in GREEDY:
        result = evaluate(model, task, problems, decoder, name=label(decoder))
        rows, measures = result_rows(stage, decoder, result, args.seed)
        tables["results"] += rows
        tables["measures"] += measures
        results[decoder] = result
    save_tables(args, tables, "results", "measures")
    return results


def justgrpo(args, task, model, tables):
    """GRPO on left-to-right rollouts (JustGRPO, arXiv 2601.15165, section 3; grpo.py has the steps)."""
    torch.manual_seed(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.grpo_lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(args.seed)
    Q, G, L = args.prompts, args.rollouts, task.completion_length
    bar, start = tqdm(range(args.grpo_steps + 1), desc="JustGRPO"), time.time()
    for step in bar:
        row = {"stage": "justgrpo", "step": step, **validate(args, task, model, step)}
        if step < args.grpo_steps:
            first = args.seed * SEED_STRIDE + SEED_STRIDE // 2 + step * Q   # not seen in pretraining
            problems = [p for p in task.problems("train", first, Q) for _ in range(G)]
            prompt = task.prompts([p["question"] for p in problems]).to(args.device)      # (Q*G, P)
            rollout = generate(model, prompt, L, Decoder("left_to_right", temperature=1.0),
                               lambda: torch.rand(Q * G, L, generator=generator))
            reward = torch.tensor([task.reward(task.text(tokens), p["answer"])
                                   for tokens, p in zip(rollout.tokens.cpu(), problems)]).view(Q, G)
            advantage = advantages(reward)                                               # (Q, G)
            pieces = grpo_loss(model, prompt, rollout.tokens, rollout.rank,
                               advantage.view(-1).to(args.device))
            loss = 0.0
            for piece in pieces:    # a few canvases at a time; gradients add up
                piece.backward()
                loss += piece.item()
            if advantage.any():     # without signal Adam would still move, on momentum alone
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            optimizer.zero_grad()
            committed = rollout.rank < L
            row |= {"loss": round(loss, 6), "reward": round(float(reward.mean()), 5),
                    "signal": round(float(advantage.any(1).float().mean()), 5),
                    "entropy": round(float(rollout.entropy[committed].mean()), 5)}
            bar.set_postfix_str(f"reward {row['reward']:.2f}, groups with signal {row['signal']:.2f}, "
                                f"entropy {row['entropy']:.3f}")
        tables["log"].append({**row, "seconds": round(time.time() - start, 2)})
        save_tables(args, tables, "log")
    save_checkpoint(f"{args.out}/justgrpo.pt", model, task.describe(), stage="justgrpo", seed=args.seed)


def validate(args, task, model, step, every=5, n=128):
    """The parallel decoders are the first to suffer from too large a step: watch them."""
    if step % every and step != args.grpo_steps:
        return {}
    problems = task.problems("validation", 0, min(n, args.problems))
    columns = {"left_to_right": GREEDY[0], "confidence": GREEDY[1], "threshold": GREEDY[3]}
    row = {c: round(float(evaluate(model, task, problems, d)["correct"].mean()), 5)
           for c, d in columns.items()}
    tqdm.write(f"  step {step:3d}, validation: " + ", ".join(f"{c} {v:.3f}" for c, v in row.items()))
    return row


def compare(args, before, after, tables):
    """Before and after, on the same problems: paired differences."""
    table = []
    for d in GREEDY:
        pair = [bootstrap(r[d]["correct"].mean(1)) for r in (before, after)]
        gain = bootstrap(after[d]["correct"].mean(1) - before[d]["correct"].mean(1))
        speed = [bootstrap(*r[d]["measures"]["tokens_per_evaluation"])[0] for r in (before, after)]
        table.append([label(d), *(f"{p[0]:.3f}" for p in pair), f"{gain[0]:+.3f}",
                      f"{gain[1]:+.3f} to {gain[2]:+.3f}", *(f"{r[d]['nfe']:.1f}" for r in (before, after)),
                      *(f"{s:.2f}" for s in speed)])
        tables["measures"].append({
            "stage": "justgrpo", "order": d.order, "selection": d.selection, "block_length":
            d.block_length or "", "temperature": 0.0, "measure": "accuracy_gain", "seed": args.seed,
            **{k: round(float(v), 5) for k, v in zip(("value", "low", "high"), gain)}})
    save_tables(args, tables, "measures")
    print_table(["greedy accuracy", "before", "after", "gain", "95 % interval", "NFE", "after",
                 "tokens/NFE", "after"], table)
    print(f"  {args.problems} problems. Look at the last columns: the parallel decoders gain as much, and "
          "write more tokens an evaluation.")


# ---------------------------------------------------------------------------------------- files

def save_tables(args, tables, *names):
    for name in names:
        write_csv(f"{args.out}/{name}.csv", TABLES[name], tables[name])


def load_tables(args):
    """Rows of earlier stages, less those that this stage writes anew."""
    tables = {name: [] for name in TABLES}
    stale = {"trap": lambda r: r["stage"] == "base" and r.get("temperature") == "0.6",
             "grpo": lambda r: r["stage"] == "justgrpo" or r.get("temperature") == "0.0"}
    for name in TABLES if args.stage in stale else ():
        if os.path.exists(f"{args.out}/{name}.csv"):
            with open(f"{args.out}/{name}.csv", encoding="utf-8", newline="") as f:
                tables[name] = [r for r in csv.DictReader(f) if not stale[args.stage](r)]
    return tables


def draw_progress(args, tables):
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        print("progress.png is not drawn: matplotlib is not installed")
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for decoder, style in zip(TRAP, ("-o", "--s", "-.^", ":d", ":x")):
        rows = [r for r in tables["results"] if r["stage"] == "base" and r["order"] == decoder.order
                and str(r["block_length"]) == str(decoder.block_length or "")
                and float(r["temperature"]) == decoder.temperature]
        k, value, low, high = ([float(r[c]) for r in rows] for c in ("k", "value", "low", "high"))
        axes[0].plot(k, value, style, label=label(decoder), markersize=4)
        axes[0].fill_between(k, low, high, alpha=0.15)
    rows = [r for r in tables["log"] if r["stage"] == "justgrpo" and r.get("threshold", "") != ""]
    for column, style in ("left_to_right", "-o"), ("confidence", "--s"), ("threshold", ":d"):
        axes[1].plot([float(r["step"]) for r in rows], [float(r[column]) for r in rows], style, label=column)
    axes[0].set(xscale="log", xlabel="k", ylabel="pass@k (T=0.6)", title="The base: the trap")
    axes[1].set(xlabel="JustGRPO step", ylabel="greedy accuracy", title="Trained left to right")
    for axis in axes:
        axis.legend(fontsize=8)
    figure.savefig(f"{args.out}/progress.png", dpi=120)


# ---------------------------------------------------------------------------------------- main

def parse_flags(argv):
    def positive(kind):
        def parse(text):
            if not kind(text) > 0:
                raise ValueError
            return kind(text)
        parse.__name__ = f"{kind.__name__} above 0"     # argparse shows it
        return parse
    parser = Parser("Pretrain, measure the flexibility trap, train with JustGRPO, measure again.")
    add = parser.add_argument
    add("--out", default="out", help="folder for checkpoints and tables")
    add("--stage", default="all", choices=["pretrain", "trap", "grpo", "all"],
        help="one act only; later ones read the earlier ones' files in --out")
    add("--quick", action="store_true", help="everything tiny, under a minute; the numbers mean little")
    add("--data", help="train on this GSM8K file instead of the toy (JSON lines)")
    add("--test", help="and test on this one")
    add("--seed", type=int, default=0, help="of weights, problems and draws")
    add("--device", default="auto", help="auto (cuda, else mps if it works, else cpu), cpu, cuda or mps")
    add("--dtype", default="float32", choices=["float32", "bfloat16"],
        help="of pretraining's matrix products; sampling and GRPO stay exact in float32")
    add("--steps", type=positive(int), help="pretraining steps")
    add("--batch", type=positive(int), help="pretraining rows a step")
    add("--lr", type=positive(float), help="pretraining learning rate (Muon; AdamW has half of it)")
    add("--width", type=positive(int), help="of the network, in multiples of 8")
    add("--layers", type=positive(int), help="of the network")
    add("--grpo-steps", type=positive(int), help="GRPO steps")
    add("--prompts", type=positive(int), help="prompts a GRPO step")
    add("--rollouts", type=positive(int), help="rollouts a prompt")
    add("--grpo-lr", type=positive(float), help="GRPO learning rate (AdamW); too large a step harms the "
        "parallel decoders first")
    add("--problems", type=positive(int), help="test problems for greedy accuracy")
    add("--trap-problems", type=positive(int), help="test problems for pass@k")
    add("--samples", type=positive(int), help="completions a problem for pass@k")
    parser.set_defaults(**TOY)      # what --help shows
    early, _ = parser.parse_known_args(argv)
    parser.set_defaults(**((REAL_QUICK if early.quick else REAL) if early.data else
                           QUICK if early.quick else TOY))
    return parser, parser.parse_args(argv)


def prepare(args, task):
    """Check everything a user can get wrong before any work. -> (task, model or None)."""
    args.device = pick_device(args.device)
    if args.width % 8:
        raise ValueError(f"--width {args.width} is not a multiple of 8 (4 heads of an even size)")
    if bool(args.data) != bool(args.test):
        raise ValueError("--data and --test go together: the training and the test file of GSM8K")
    os.makedirs(args.out, exist_ok=True)
    write_whole(f"{args.out}/.writable", b"")
    os.unlink(f"{args.out}/.writable")
    model = None
    if args.stage in ("trap", "grpo"):
        if not os.path.exists(f"{args.out}/base.pt"):
            raise ValueError(f"{args.out}/base.pt is missing; make it with: python train.py --stage "
                             f"pretrain --out {args.out}")
        model, description, _ = load_checkpoint(f"{args.out}/base.pt", args.device)
        if description["name"] == "gsm8k" and not args.data:
            raise ValueError(f"{args.out}/base.pt was trained on GSM8K: name its files, --data and --test")
    if task is None:
        task = GSM8K.from_files(args.data, args.test, **SHAPE) if args.data else Toy()
    return task, model


def run(args, task, model):
    tables, seconds, after, before = load_tables(args), {}, None, None
    clock = time.time()

    def lap(name):
        nonlocal clock
        seconds[name], clock = round(time.time() - clock, 1), time.time()
    show_task(args, task)
    if args.stage in ("pretrain", "all"):
        model = pretrain(args, task, tables)
        lap("pretrain")
    if args.stage in ("trap", "all"):
        print("\n== Act 3: the flexibility trap ==")
        trap(args, task, model, tables)
        lap("trap")
    if args.stage in ("grpo", "all"):
        print("\n== Act 4: JustGRPO ==")
        before = greedy(args, task, model, tables, "base")
        lap("greedy before")
        justgrpo(args, task, model, tables)
        lap("grpo")
        after = greedy(args, task, model, tables, "justgrpo")
        compare(args, before, after, tables)
        print("  And pass@k again, after JustGRPO:")
        trap(args, task, model, tables, "justgrpo")
        lap("measures after")
    return tables, seconds


def main(argv=None, task=None):
    """`task`: a data.Task of your own instead of the toy."""
    parser, args = parse_flags(argv)
    try:
        task, model = prepare(args, task)
        tables, seconds = run(args, task, model)
        headline = [r for r in tables["results"] if r["k"] in (1, "1")]
        write_whole(f"{args.out}/summary.json", json.dumps({
            "settings": vars(args), "seconds": seconds, "threads": torch.get_num_threads(),
            "machine": platform.platform() + ", " + (platform.processor() or platform.machine()),
            "versions": {"python": platform.python_version(), "torch": torch.__version__,
                         "numpy": np.__version__}, "accuracy": headline}, indent=1).encode())
        draw_progress(args, tables)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"\nstopped; whole files in {args.out}: " + ", ".join(sorted(os.listdir(args.out))))
        sys.exit(130)
    print(f"\n{sum(seconds.values()):.0f} s in all: " + ", ".join(f"{k} {v}" for k, v in seconds.items()))
    if args.quick:
        print("This was --quick: everything ran, the numbers mean little.")
    print(f"""Next:
  python sample.py --checkpoint {args.out}/justgrpo.pt --watch --order top_probability --select threshold=0.9
  python eval_gsm8k.py --checkpoint {args.out}/justgrpo.pt --order confidence --block-length 4
  python train.py --seed {args.seed + 1} --out {args.out}-{args.seed + 1}""")


if __name__ == "__main__":
    main()
