"""Runs of train.py's RL loop, watched: made once, kept in out/rl, one to five minutes each.

A script of this folder makes the runs that it needs and lacks, with one thread each if told so:
OMP_NUM_THREADS=1, two scripts side by side. Every few steps a run is measured:
four greedy decoders on test problems, and what its rollouts contain, in its own order at its own
temperature, on validation problems (none of them is trained on). Counted are forward evaluations:
one a row and state, as the published loops run them but up to end-of-text (`evaluations`), and the
distinct canvases that really ran (`states`). The seconds are those of training alone."""
import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import grpo
import numpy as np
import torch
import train
from tqdm import tqdm
from eval_gsm8k import evaluate, read_csv, write_csv
from experiments import rows as trap
from experiments.bases import load
from grpo import log_prob_table, log_probs
from model import draw_masks, load_checkpoint
from sample import Decoder

GREEDY = {**train.WATCHED, "entropy_bound": Decoder("top_probability", "entropy_bound")}
KEY = ["variant", "seed", "arm", "options", "step"]
CONTENT = ["reward", "signal", "length", "all_steps", "right_all", "some_steps", "right_some",
           "no_steps", "right_none", "malformed", "entropy_fork", "entropy_other"]
# far_hash: P(####) where it stands in a text with every step, on a canvas that is still empty.
# forks_trained, forks: share of forks among the terms trained on so far, and among all terms.
# moved: distance of the weights from the base's. bits: which test problems each decoder but the
# last solves, one after the other, in hexadecimal (see `bits`); of the second row and the last.
COLUMNS = [*KEY, "base", "seconds", "evaluations", "states", "clipped", "moved", "far_hash",
           "forks_trained", "forks", "bits", *GREEDY,
           *(f"nfe_{name}" for name in GREEDY), *(f"validation_{name}" for name in GREEDY),
           "n_problems", *CONTENT, "n_rollouts"]
WATCHED_AT = 0, 5, 10, 20, 40, 60
ENDS = 0, 5, 60     # for who needs no curve: watching takes four times as long as training

@dataclass(frozen=True)
class Run:
    """An arm, from a base (variant, seed); options: flags of train.py, and words of Spy's."""
    arm: str
    seed: int
    options: str = ""
    variant: str = "default"
    watched: tuple = WATCHED_AT

    def folder(self, runs, quick):
        watched = [] if self.watched == WATCHED_AT else ["at", *map(str, self.watched)]
        name = " ".join([self.arm, *self.options.split(), *watched]).replace("--", "")
        return Path(runs, f"{self.variant}-{'quick' if quick else self.seed}", name)

class Spy:
    """Counts what the loop runs. And it adds what train.py does not have: kl times GRPO's estimate
    of the divergence from the base (2402.03300, eq. 4), at every term; another share of masked
    prompt tokens for arm one_step; mask rates from t_from to 1 - t_from for arm elbo; and, with
    every_commit, arm fork's loss on all of its commits."""
    def __init__(self, model, task, kl=0.0, prompt_mask=0.15, t_from=0.0, every_commit=0):
        self.evaluations = self.states = 0
        self.forks = np.zeros(4)        # forks, terms: of those trained on; and of all
        self.kl, self.prompt_mask, self.base = kl, prompt_mask, copy.deepcopy(model)
        self.hook = model.register_forward_hook(self.count)
        self.counting, self.task = True, task
        self.t_from, self.every_commit = t_from, every_commit
    def count(self, model, inputs, output):
        self.states += len(inputs[0]) * self.counting
    def asked(self, kind, *args, **how):
        kind = "recorded" if self.every_commit else kind
        with patch.object(grpo, "draw_masks", self.draw_masks):
            return self.real["asked"](kind, *args, prompt_mask=self.prompt_mask, **how)
    def draw_masks(self, n_rows, length, generator=None):
        t, is_masked = draw_masks(n_rows, length, generator)
        if self.t_from:
            t = self.t_from + (1 - 2 * self.t_from) * t
            is_masked = torch.rand(n_rows, length, generator=generator) < t[:, None]
        return t, is_masked
    def generate(self, *args):
        sample = self.real["generate"](*args)
        self.evaluations += int(sample.nfe.sum())
        return sample
    def grpo_loss(self, model, prompt, completion, rank, advantage, scale=None, **how):
        self.evaluations += states_a_row(rank, scale)
        forks, terms = self.task.forks(completion), (rank >= 0) & (rank < rank.shape[1])
        self.forks += [int(x.sum()) for x in (forks & (scale > 0), scale > 0, forks & terms, terms)]
        yield from self.real["grpo_loss"](model, prompt, completion, rank, advantage, scale=scale,
                                          **how)
        if self.kl:
            reference = log_prob_table(self.base, prompt, completion, rank)
            for row, i, logp in log_probs(model, prompt, completion, rank, scale):
                gap = reference[row, i] - logp
                yield self.kl * (gap.exp() - gap - 1).sum() / (scale > 0).sum()
    def log_prob_table(self, model, prompt, completion, rank, weight, **how):
        self.evaluations += states_a_row(rank, weight)
        return self.real["log_prob_table"](model, prompt, completion, rank, weight=weight, **how)
    def diffusion_loss(self, model, prompt, *args):
        self.evaluations += len(prompt)
        return self.real["diffusion_loss"](model, prompt, *args)
    def __enter__(self):
        names = "generate", "asked", "grpo_loss", "log_prob_table", "diffusion_loss"
        self.real = {name: getattr(train, name) for name in names}
        self.patch = patch.multiple(train, **{name: getattr(self, name) for name in names})
        self.patch.start()
        return self
    def __exit__(self, *_):
        self.hook.remove()
        self.patch.stop()

def states_a_row(rank, scale):      # of a row, as many states as its terms have different ranks
    row, place = (scale > 0).nonzero(as_tuple=True)
    return len((row * (rank.shape[1] + 1) + rank[row, place]).unique())

def bits(correct):      # 0s and 1s -> hexadecimal, after a 1 that keeps the zeros
    return f"{int('1' + ''.join(str(int(x)) for x in correct), 2):x}"

def from_bits(text):
    return np.array(list(f"{int(text, 16):b}"[1:]), dtype=int)

OF_BASE = {}        # the last base's weights, n -> greedy's

def greedy(model, task, split, n):      # -> name: accuracy, nfe; and bits
    problems = task.held_out(split, n)
    found = {name: evaluate(model, task, problems, d) for name, d in GREEDY.items()}
    return {name: (round(float(r["correct"].mean()), 4), round(r["nfe"], 3))
            for name, r in found.items()}, bits(np.concatenate(
                [found[name]["correct"][:, 0] for name in train.WATCHED]))

def content(model, task, decoder, n, seed):
    """What rollouts contain: n problems x 8."""
    problems = task.held_out("validation", n)
    result = evaluate(model, task, problems, decoder, 8, seed)
    right = result["correct"].flatten()
    steps = np.array([len(task.tokenizer.encode_ordinary(text)) for texts in result["texts"]
                      for text in texts])
    written = np.array([text.count("->") for texts in result["texts"] for text in texts])
    kinds = {"all": written >= task.n_steps, "none": written == 0}
    kinds["some"] = ~kinds["all"] & ~kinds["none"]
    row = {"reward": right.mean(), "n_rollouts": len(right), "length": steps.mean() + 1,
           "signal": ((0 < result["correct"].mean(1)) & (result["correct"].mean(1) < 1)).mean()}
    for kind, column in (("all", "all_steps"), ("some", "some_steps"), ("none", "no_steps")):
        row[column] = kinds[kind].mean()
        row[f"right_{kind}"] = right[kinds[kind]].mean() if kinds[kind].any() else ""
    for name in ("malformed", "entropy_fork", "entropy_other"):
        row[name] = share(*(part.sum() for part in result["measures"][name]))
    return {k: v if v == "" else round(float(v), 4) for k, v in row.items()}

def share(part, whole):
    return round(part / whole, 4) if whole else ""

@torch.no_grad()
def distance(a, b):
    return sum(float((x - y).square().sum()) for x, y in zip(a.parameters(), b.parameters())) ** 0.5

@torch.no_grad()
def far_hash(model, task, n):
    prompt = task.prompts([p["question"] for p in task.held_out("validation", n)])
    empty = torch.full((len(prompt), task.completion_length), task.mask_id)
    logits = model(torch.cat([prompt, empty], 1))[:, task.prompt_length
                                                  + task.fork_position(task.n_steps)]
    return float(logits.softmax(-1)[:, task.hash_id].mean())

def settings(run, folder, quick):       # starts the log -> train.py's flags, and Spy's own
    words = run.options.split()
    own = {k: float(v) for k, _, v in (word.partition("=") for word in words if "=" in word)}
    flags = ["--device", "cpu", "--seed", str(run.seed), "--arm", run.arm, "--out", str(folder),
             *(word for word in words if "=" not in word)]
    parser, args = train.parse_flags(flags + ["--quick", "--grpo-steps", "5"] * quick)
    train.check(parser, args)
    write_csv(Path(folder, "log.csv"), train.TABLES["log"], [])
    return args, own

def train_run(bases, runs, run, quick=False):
    """-> the rows of a run: read, if it is there, else made."""
    folder = run.folder(runs, quick)
    path = folder / "rows.csv"
    whole = replace(run, watched=WATCHED_AT).folder(runs, quick) / "rows.csv"
    if set(run.watched) <= set(WATCHED_AT) and whole.exists():     # the same, watched more often
        path = whole
    if path.exists():
        rows = read_csv(path)
        if not quick and set(run.watched) - {int(r["step"]) for r in rows}:
            raise ValueError(f"{path} was watched at other steps; remove it")
        return [{**r, "seconds": r["seconds"] or "0", "clipped": r["clipped"] or "0"}
                for r in rows if quick or int(r["step"]) in run.watched]
    model, task, weights = load(bases, run.variant, run.seed, quick)
    folder.mkdir(parents=True, exist_ok=True)
    holder = train.lock(folder, wait=True)      # another script, side by side, may be making it
    if path.exists():
        holder and os.close(holder)
        return train_run(bases, runs, run, quick)
    args, own = settings(run, folder, quick)
    n, rows, model = 16 if quick else 400, [], copy.deepcopy(model)
    spy = Spy(model, task, **own)

    def watch(args, task, model, step):
        if step not in run.watched and step != args.grpo_steps:
            return {}
        spy.counting = False
        if step == 0 and (weights, n) not in OF_BASE:
            OF_BASE.clear()
            OF_BASE[weights, n] = greedy(model, task, "test", n)
        found, right = greedy(model, task, "test", n) if step else OF_BASE[weights, n]
        row = {"variant": run.variant, "seed": run.seed, "arm": run.arm, "options": run.options,
               "step": step, "base": weights, "n_problems": n, "evaluations": spy.evaluations,
               "states": spy.states, "far_hash": round(far_hash(model, task, n), 4),
               "moved": round(distance(model, spy.base), 4),
               "bits": right if step in (run.watched[1], args.grpo_steps) else "",
               "forks_trained": share(*spy.forks[:2]), "forks": share(*spy.forks[2:]),
               **{k: v for k, (v, _) in found.items()},
               **{f"nfe_{k}": v for k, (_, v) in found.items()}}
        if step == args.grpo_steps:
            row |= {f"validation_{k}": v
                    for k, (v, _) in greedy(model, task, "validation", n)[0].items()}
        rows.append(row | content(model, task, train.rollouts(args), n // 4 if quick else 64,
                                  run.seed))
        spy.counting = True
        return {}
    with spy:
        train.grpo(args, task, model, watch)
    log = {r["step"]: r for r in read_csv(folder / "log.csv")}
    for row in rows:
        row |= {"seconds": log[str(row["step"])]["seconds"],
                "clipped": log[str(row["step"])]["clipped"]}
    write_csv(path, COLUMNS, rows)
    holder and os.close(holder)     # None on Windows
    return train_run(bases, runs, run, quick)

def unwatched(bases, run, folder, quick=False):     # -> step: seconds; the model is in the folder
    model, task, _ = load(bases, run.variant, run.seed, quick)
    flags, _ = settings(run, folder, quick)
    train.grpo(flags, task, copy.deepcopy(model), lambda *_: {})
    return {int(r["step"]): r["seconds"] or "0" for r in read_csv(Path(folder, "log.csv"))}

def trained(bases, runs, run, quick=False):
    """-> the model of a run, its task. Rows are in the repository, models are not: one that is
    missing is trained again, and unwatched."""
    path = run.folder(runs, quick) / f"{run.arm}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unwatched(bases, run, path.parent, quick)
    return load_checkpoint(path)[0], load(bases, run.variant, run.seed, quick)[1]

def parse_flags(name, description):
    return trap.parse_flags(name, description, folder="rl",
                            runs=("out/rl", "folder of the RL runs; those missing are made"))

def run_key(row):
    return tuple(str(row[name]) for name in ("variant", "seed", "arm", "options"))

def collect(args, runs):
    """-> the rows of these runs, as read from the CSV; what is not there is trained, and written as
    soon as it is."""
    rows = read_csv(args.csv) if Path(args.csv).exists() else []
    wanted = {run_key(vars(run)): run for run in runs}
    for key, run in (bar := tqdm(wanted.items(), desc="runs")):
        if key not in map(run_key, rows):
            bar.set_postfix_str(" ".join(key))
            rows += train_run(args.bases, args.runs, run, args.quick)
            write_csv(args.csv, COLUMNS, rows)
    return [r for r in rows if run_key(r) in wanted]

def run(name, description, runs, tables, draw):
    """An experiment: train what is missing, print its tables, draw its figure if asked to."""
    args = parse_flags(name, description)
    trap.report(args, collect(args, runs(args.seeds)), tables, draw)

def of(rows, run):      # -> its rows, one a watched step
    found = [r for r in rows if run_key(r) == run_key(vars(run))]
    if not found:
        raise ValueError(f"no rows of {run}")
    return found

def number(row, column):        # a share of nothing is nothing
    return float(row[column] or 0)

def each(values, form="{:.3f}"):        # of the seeds
    return "; ".join(form.format(float(v)) if v != "" else "none" for v in values)

def gather(args, columns, cells, how):
    """-> rows, as read from the CSV, of these cells (dicts); those not there are how(cell)."""
    rows = read_csv(args.csv) if Path(args.csv).exists() else []
    def has(row, cell):
        return all(row[name] == str(value) for name, value in cell.items())
    for cell in (bar := tqdm(cells, desc="rows")):
        if not any(has(row, cell) for row in rows):
            bar.set_postfix_str(" ".join(map(str, cell.values())))
            rows.append({k: str(v) for k, v in (cell | how(cell)).items()})
            write_csv(args.csv, columns, rows)
    rows = read_csv(args.csv)
    return [next(row for row in rows if has(row, cell)) for cell in cells]
