"""The whole story in five acts: the task, pretraining, the flexibility trap, JustGRPO, and
the same with the freedom back.

    python train.py             five minutes on two cores
    python train.py --quick     seconds, for a first look; its numbers mean little
    python train.py --data train.jsonl --test test.jsonl        the same on the real GSM8K
    python train.py --resume    go on after Ctrl-C, a crash or a kill: the same flags, and this

Leaves in --out: base.pt, justgrpo.pt and confidence.pt (act 5's), log.csv (training),
results.csv (accuracies), measures.csv (the rest), texts.jsonl and texts-confidence.jsonl
(what was written), summary.json, state.pt (what --resume goes on from), and trap.png and
progress.png if matplotlib is installed. What an earlier run has left there is first moved
to out.1. Same seed and threads on a CPU: the same files, times apart; on a GPU only the
seed is promised.
"""
import copy
import functools
import hashlib
import math
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

from data import GSM8K, SPLITS, TASKS, Worksheet, read_splits, short, try_task
from eval_gsm8k import (MEASURE_COLUMNS, RESULT_COLUMNS, bootstrap, closed_form,
                        columns_of, crossing, derived_rows, evaluate, first_line,
                        interval_of, json_line, leads, matching, measure_rows, number,
                        pass_lines, print_table, probe, result_rows, row_key, text_line)
from grpo import Arm, Recipe, grpo
from model import ALONE, MaskedDiffusionLM, ModelConfig, diffusion_loss, draw_masks
from runs import Run, ends_quietly, plain, read_csv
from sample import (Decoder, folder, import_llada, load_checkpoint, new_parser,
                    pick_device, positive, save_checkpoint)

# What act 3 samples from, at the paper's temperature. (The paper's blocks are an eighth
# of its canvas.)
TRAP = {
    "left_to_right": Decoder("left_to_right", temperature=0.6),
    "confidence": Decoder("confidence", temperature=0.6),
    "confidence, blocks of 8": Decoder("confidence", block_length=8, temperature=0.6),
    "confidence, blocks of 4": Decoder("confidence", block_length=4, temperature=0.6),
    "top_probability": Decoder("top_probability", temperature=0.6),
}
# Which of these are sampled from once more after RL.
AFTER = "left_to_right", "confidence, blocks of 8"
# What acts 4 and 5 measure before and after; always the likeliest token.
GREEDY = {
    "left_to_right": Decoder("left_to_right"),
    "confidence": Decoder("confidence"),
    "confidence, blocks of 8": Decoder("confidence", block_length=8),
    "threshold": Decoder("top_probability", "threshold", 0.9),
    "entropy_bound": Decoder("top_probability", "entropy_bound", 0.1),
    "two a step": Decoder("top_probability", "k", 2),
    "four a step": Decoder("top_probability", "k", 4),
}
# What they watch meanwhile.
WATCHED = "left_to_right", "confidence", "threshold"

TABLES = {"results": RESULT_COLUMNS, "measures": MEASURE_COLUMNS,
          "log": ["stage", "step", "loss", "reward", "signal", "entropy", "length", "seconds",
                  *WATCHED]}
FILES = ("base.pt", "justgrpo.pt", "confidence.pt", "texts.jsonl", "texts-confidence.jsonl",
         "trap.png", "progress.png", "justgrpo")      # the last: of --llada
# The two ways of rolling out, by the act (a --stage) that trains with them.
ARMS = {"grpo": Arm(Decoder("left_to_right", temperature=1.0)),
        "freedom": Arm(Decoder("confidence", block_length=8, temperature=1.0),
                       "confidence")}
LATER = "trap", *ARMS        # the acts that go on from base.pt, if they are done alone
STRIDE = 10**7      # seed s trains on the problems from s * STRIDE on

# ----------------------------------------------------------------------------------------
# flags: only what a reader turns; the rivals have theirs in experiments/arms.py

# Other defaults, where the plain ones make no sense: with --quick,
QUICK = dict(steps=60, batch=32, width=64, layers=2, grpo_steps=3, prompts=4, rollouts=4,
             problems=32, trap_problems=8, samples=8)
# with --data (GSM8K's texts are ten times as long),
REAL = dict(steps=3000, batch=16, grpo_steps=4, prompts=4, rollouts=4, problems=32,
            trap_problems=8, samples=8)
# and with both.
QUICK_REAL = dict(steps=10, batch=8, width=64, layers=2, grpo_steps=1, prompts=1, rollouts=4,
                  problems=2, trap_problems=1, samples=2)
SHAPE = dict(n_merges=1792, prompt_length=112, completion_length=128)   # GSM8K's canvas


def make_parser():
    parser = new_parser(
        "Pretrain, measure the flexibility trap, train by JustGRPO, measure again.")
    add = parser.add_argument
    # what to run
    add("--out", type=folder, default="out", help="folder for checkpoints and tables")
    add("--stage", default="all", choices=["pretrain", *LATER, "all"],
        help="one act only: pretrain (acts 1 and 2) starts anew; trap (3), grpo (4: "
             "JustGRPO) and freedom (5: RL on free rollouts) go on from the files in --out")
    add("--resume", action="store_true", help="go on with the run in --out that was "
        "stopped, with the same flags; its state is kept every 10 seconds")
    add("--quick", action="store_true", help="everything tiny; its numbers mean little")
    add("--data", help="train on this GSM8K file (JSON lines) instead of the toy")
    add("--test", help="and test on this one")
    add("--llada", type=folder, metavar="FOLDER", help="with --stage grpo: JustGRPO on this "
        "published LLaDA, or one of its layout; it must be small (docs/llada.md)")
    add("--length", type=positive(int), default=256,
        help="tokens of its completions")
    # pretraining
    add("--steps", type=positive(int), default=1400, help="pretraining steps")
    add("--batch", type=positive(int), default=64, help="pretraining rows a step")
    add("--lr", type=positive(float), default=0.006,
        help="pretraining learning rate (Muon; AdamW has half)")
    add("--width", type=positive(int), default=128,
        help="of the network, a multiple of 8")
    add("--layers", type=positive(int), default=3, help="of the network")
    add("--dtype", default="float32", choices=["float32", "bfloat16"],
        help="of pretraining only")
    # JustGRPO
    add_grpo_flags(parser)
    return parser


def add_grpo_flags(parser):
    add = parser.add_argument
    add("--grpo-steps", type=positive(int), default=Recipe.steps, help="GRPO steps")
    add("--prompts", type=positive(int), default=Recipe.prompts,
        help="prompts a GRPO step")
    add("--rollouts", type=positive(int), default=Recipe.rollouts,
        help="rollouts a prompt, at least 2: one has no siblings")
    add("--grpo-lr", type=positive(float), default=Recipe.lr, help="GRPO learning rate")
    # measuring
    add("--problems", type=positive(int), default=400,
        help="test problems for greedy accuracy")
    add("--trap-problems", type=positive(int), default=400,
        help="test problems for pass@k")
    add("--samples", type=positive(int), default=16,
        help="completions a problem for pass@k")


def parse_flags(argv):
    parser = make_parser()
    # Look at the flags twice: first for which defaults are wanted, then at all of them.
    first, _ = parser.parse_known_args(argv)
    if first.quick:
        parser.set_defaults(**(QUICK_REAL if first.data else QUICK))
    elif first.data:
        parser.set_defaults(**REAL)
    if first.llada:     # prompts are not padded, so that one is all that a batch can have
        parser.set_defaults(prompts=1)
    return parser.parse_args(argv)

# ----------------------------------------------------------------------------------------
# act 1: what the model will read, and where its texts fork


def show_task(args, task):
    print("\n== Act 1: the task ==")
    for problem in examples(task):
        question, lines = problem["question"].strip(), problem["solution"].split("\n")
        if task.n_lines:        # with every line and with none; a bar at each fork
            question += f" ({task.kind(problem)})"
            ids = task.completions([task.solution(problem, n) for n in (task.n_lines, 0)])
            lines = [with_bars(task, tokens, forks)
                     for tokens, forks in zip(ids.tolist(), task.forks(ids).tolist())]
        print("\n  " + "\n    ".join(plain(line) for line in [question, *lines]))
    print(f"\n  prompt {task.prompt_length} tokens, completion {task.completion_length}, "
          f"vocabulary {task.tokenizer.n_vocab}; seed {args.seed}")
    for split in SPLITS:
        size = task.size(split) or "endless"
        print("; ".join([f"  {split}: {size} problems", *task.left_out(split)]))
    if task.n_lines:
        rates = ", ".join(f"{kind} {rate[0]:g}" for kind, rate in task.true_go_on().items())
        print("Look at the bars: there a line is written, or the rest left blank; both are "
              f"right.\nHow often the first line is written: {rates}.")
    else:
        print("The forks are not known here; what needs them is left out.")


def examples(task):
    """Three test problems; or of the first twenty one of each kind, with many words."""
    problems = task.held_out("test", 20)
    if not task.n_lines:
        return problems[:3]
    problems.sort(key=lambda problem: len(set(problem["question"].split())))
    return {task.kind(problem): problem for problem in problems}.values()


def with_bars(task, tokens, forks):
    bars = ["|" if fork else "" for fork in forks]
    return "".join(bar + task.text([token]) for bar, token in zip(bars, tokens))

# ----------------------------------------------------------------------------------------
# act 2: learn to fill in what is hidden; then see what was learned


def pretrain(args, run, task):
    """A model from random weights, by masked diffusion."""
    print("\n== Act 2: pretraining a masked-diffusion model from scratch ==")
    model = new_model(args, task)
    muon, adam = new_optimizers(model, args.lr)
    generator = torch.Generator().manual_seed(args.seed)
    recent = {"losses": []}     # a dict, so that a stopped run can go on from it

    for step in run.loop("base", args.steps, model, muon, adam, generator, recent):
        # Problems that were never seen before: the toy does not run out of them. At first
        # every line is written, so that lines are learned early; then as the task has it,
        # with habits.
        first = args.seed * STRIDE + step * args.batch
        problems = task.problems("train", first, args.batch)
        solutions = [p["solution"] for p in problems]
        if task.n_lines and step < 0.4 * args.steps:
            solutions = [task.solution(p, task.n_lines) for p in problems]
        prompt = task.prompts([p["question"] for p in problems]).to(args.device)  # (B, P)
        completion = task.completions(solutions).to(args.device)                # (B, L)
        # Hide some of it, predict what is hidden.
        t, is_masked = draw_masks(*completion.shape, generator)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = diffusion_loss(model, prompt, completion, t, is_masked)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)    # 1/t has a long tail
        # Warm up over 50 steps, hold, then along half a cosine to zero: how likely a line
        # is at a fork settles last, while the rate is small.
        falling = max(0, step / args.steps - 0.3) / 0.7
        scale = min((step + 1) / 50, (1 + math.cos(math.pi * falling)) / 2)
        muon.param_groups[0]["lr"] = args.lr * scale
        adam.param_groups[0]["lr"] = args.lr / 2 * scale
        step_in_float32(muon)
        adam.step()
        muon.zero_grad()
        adam.zero_grad()

        # The loss of one batch is noisy (1/t): show the mean of twenty.
        recent["losses"] = recent["losses"][-19:] + [loss.item()]
        if (step + 1) % 20 == 0 or step + 1 == args.steps:
            loss = float(np.mean(recent["losses"]))
            run.show(loss=loss)
            log(run, "base", step + 1, loss=loss)
    if not run.stopped:     # half a base is no base; the state has what there is of it
        save_checkpoint(f"{args.out}/base.pt", model, task, stage="base", seed=args.seed)
    return model.eval()


def new_model(args, task):
    config = ModelConfig(
        task.tokenizer.n_vocab, task.mask_id, task.eos_id, n_layer=args.layers,
        n_embd=args.width, n_hidden=3 * args.width,
        # Twice the prompt: a question of the user's own may be longer than the task's.
        max_length=2 * task.prompt_length + task.completion_length)
    with ALONE:
        torch.manual_seed(args.seed)    # of the weights; later draws have a generator
        model = MaskedDiffusionLM(config).to(args.device)
    print(f"  {sum(p.numel() for p in model.parameters()):,} parameters, on {args.device}")
    return model


def new_optimizers(model, lr):
    """Muon (K. Jordan 2024) on the blocks' matrices, AdamW on embedding, head and norms."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.01)
    adam = torch.optim.AdamW(rest, lr=lr / 2, betas=(0.9, 0.98), weight_decay=0.0)
    return muon, adam


def step_in_float32(muon):
    """torch.optim.Muon rounds to bfloat16, which CPUs may only emulate: that takes 3/4
    of a training step on some, and is less precise. So here its call of Tensor.bfloat16
    gives float32. (A test fails when a new version of torch asks in another way.)"""
    with ALONE, patch.object(torch.Tensor, "bfloat16", torch.Tensor.float):
        muon.step()


def show_base(args, run, task, model):
    """What the base knows: printed, and rows of measures.csv. Returns the share of
    lines whose value is right."""
    base = probe(model, task, args.problems)
    print(f"  held-out masked NLL {base.masked_nll:.3f} nats a token; always answering "
          f"{plain(str(base.common_answer))} would be right {base.majority_answer:.1%} of the "
          "time")
    if task.n_lines:
        table = [[name, *map(number, values)] for name, values in base.lines.items()
                 if name.endswith(task.kinds)]
        print_table(["lines written before", *range(task.n_lines + 1)], table)
        print("next_value: right, given a correct start; answer_in_head: right if it is "
              "given then. go_on: the\nprobability that one more line is written; true_go_on: "
              "the texts' own. Compare next_value with\nanswer_in_head before any line, and "
              "go_on with true_go_on.")
    run.record("measures", [
        {"stage": "base", "measure": name, "value": round(float(value), 5),
         "seed": args.seed} for name, value in base.measures().items()])
    return base.next_value()

# ----------------------------------------------------------------------------------------
# act 3: many samples of the same base, in one order after the other


def measure_all(args, run, task, model, stage, decoders, n_problems, n_samples=1,
                ks=(1,), is_recorded=True):
    """Evaluate every decoder on the same test problems: {name: Evaluation}, and rows of
    results.csv and measures.csv. None if the run was stopped."""
    problems = task.held_out("test", n_problems)
    found = {}
    for name, decoder in decoders.items():
        # The run's own loop, so that an evaluation can be stopped and gone on with, too.
        loop = functools.partial(run.loop, f"{stage}, {decoder}, T={decoder.temperature}",
                                 leave=False)
        found[name] = evaluate(model, task, problems, decoder, n_samples, args.seed,
                               loop=loop)
        if run.stopped:
            return None
        if is_recorded:     # at once: a run that ends early leaves what it has measured
            run.record("results", result_rows(stage, decoder, found[name], args.seed, ks))
            run.record("measures", measure_rows(stage, decoder, found[name], args.seed))
    return found


def measure_trap(args, run, task, model, stage, names=TRAP):
    """pass@k of these orders: the tables, and how far left to right is ahead."""
    ks = [2**i for i in range(20) if 2**i <= args.samples]      # 1, 2, 4, ...
    decoders = {name: TRAP[name] for name in names}
    found = measure_all(args, run, task, model, stage, decoders, args.trap_problems,
                        args.samples, ks)
    if run.stopped:
        return
    show_right(args, stage, found, ks)
    record_leads(args, run, stage, found, ks, "right@k", "correct", "lead_of_ltr")
    if task.n_lines:
        record_derived(args, run, task, model, stage, found, ks)
        record_leads(args, run, stage, found, ks, "derived@k", "derived",
                     "lead_of_ltr_derived")


def show_right(args, stage, found, ks):
    right, others = [], []
    # `distinct` is not measured of one sample, and the rest only where forks are known.
    legend = {"distinct": "different texts of a problem",
              "bypass_fork": "forks filled after something on their right",
              "entropy_fork": "nats left at a fork when it was filled"}
    names = [name for name in legend if name in found["left_to_right"].measures]
    for name, evaluation in found.items():
        rows = result_rows(stage, TRAP[name], evaluation, args.seed, ks)
        right += pass_lines(TRAP[name], rows)
        others.append([TRAP[name], *(f"{interval_of(m, *evaluation.measures[m]).value:.2f}"
                                     for m in names)])
    print_table(["right@k at T=0.6, k =", *ks], right)
    if names:
        print_table(["", *names], others)
        for name in names:
            print(f"    {name}: {legend[name]}")


def record_derived(args, run, task, model, stage, found, ks):
    """The same of derivations, which nobody guesses, by kind; and what is predicted of
    them by the closed form, from one look at the empty canvases."""
    problems = task.held_out("test", args.trap_problems)
    table = []
    for name, evaluation in found.items():
        for kind in ("", *task.kinds):
            rows = derived_rows(stage, TRAP[name], task, problems, evaluation, args.seed,
                                ks, kind)
            run.record("measures", rows)
            table.append([f"   {kind}" if kind else TRAP[name],
                          *(f"{row['value']:.3f}" for row in rows)])
    if stage == "base":
        decoder, evaluation = TRAP["left_to_right"], found["left_to_right"]
        q = first_line(model, task, problems, decoder.temperature)
        key = row_key(stage, decoder, args.seed)
        predicted = closed_form(q, evaluation.derived, ks)
        run.record("measures", [
            {**key, "measure": f"derived_predicted_at_{k}", "value": round(value, 5)}
            for k, value in predicted.items()])
        table.append(["left to right, predicted",
                      *(f"{value:.3f}" for value in predicted.values())])
    print_table(["derived@k, k =", *ks], table)


def record_leads(args, run, stage, found, ks, of, column, name):
    """How far left to right is ahead, paired by problem; column: of Evaluation."""
    first = getattr(found["left_to_right"], column)
    print(f"  lead of left to right in {of}, over")
    for other, evaluation in found.items():
        if other == "left_to_right":
            continue
        ahead = leads(first, getattr(evaluation, column), ks)
        key = row_key(stage, TRAP[other], args.seed)
        run.record("measures", [{**key, "measure": f"{name}_at_{k}", **lead.rounded()}
                                for k, lead in ahead.items()])
        print(f"    {str(TRAP[other]):26} {crossing(ahead)}")

# ----------------------------------------------------------------------------------------
# acts 4 and 5: reinforcement learning on rollouts from left to right, and then on free
# ones; all other decoders are only measured


def reinforce(args, run, task, model, arm, recipe, with_base=True):
    """Greedy accuracy, GRPO, greedy accuracy again, and right@k again. with_base: the
    base's rows are written, too, and not another act's. (Act 5 measures the base that act
    4 has measured: the run knows these loops as finished, so that takes no time.)"""
    before = measure_all(args, run, task, model, "base", GREEDY, args.problems,
                         is_recorded=with_base)
    if run.stopped:     # after each loop: all is saved, go back to main at once
        return
    keep_texts(args, run, task, arm, {"base": before})
    train_by_grpo(args, run, task, model, arm, recipe)
    if run.stopped:
        return
    if task.name == "llada":
        task.export(model, f"{args.out}/{arm.name}")
    else:
        save_checkpoint(f"{args.out}/{arm.name}.pt", model, task, stage=arm.name,
                        seed=args.seed)
    after = measure_all(args, run, task, model, arm.name, GREEDY, args.problems)
    if run.stopped:
        return
    keep_texts(args, run, task, arm, {"base": before, arm.name: after})
    compare(args, run, arm.name, before, after)
    print("  And right@k again:")
    measure_trap(args, run, task, model, arm.name, AFTER)


def train_by_grpo(args, run, task, model, arm, recipe):
    """The loop of grpo.py, with its rows of log.csv; every five steps it is validated."""
    if not run.has_begun(arm.name):     # else a resumed run has that row
        log(run, arm.name, 0, **validate(args, task, model, 0))
    n_quiet = 0     # steps in a row without anything to learn from
    for found in grpo(model, task, arm, recipe, run):
        row = dict(loss=found.loss, reward=found.reward, signal=found.signal,
                   entropy=found.entropy, length=found.length, **found.own)
        run.show(reward=found.reward, signal=found.signal, entropy=found.entropy,
                 length=found.length)
        n_quiet = 0 if found.signal else n_quiet + 1
        if n_quiet and n_quiet % 50 == 0:
            tqdm.write(f"  step {found.step}: for 50 steps no group had rollouts that are "
                       "paid differently")
        if found.step % 5 == 0 or found.step == recipe.steps:
            row.update(validate(args, task, model, found.step))
        log(run, arm.name, found.step, **row)


def validate(args, task, model, step):
    """Greedy accuracies on validation problems: parallel decoders suffer first from
    steps that are too large."""
    problems = task.held_out("validation", min(128, args.problems))
    found = {}
    for name in WATCHED:
        found[name] = evaluate(model, task, problems, GREEDY[name]).correct.mean()
    tqdm.write(f"  step {step}, validation: "
               + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return found


def compare(args, run, stage, before, after):
    """On the same problems, so that differences are paired, and sharper than two
    intervals."""
    table = []
    for name, decoder in GREEDY.items():
        old, new = before[name], after[name]
        gain = bootstrap(new.correct.mean(1) - old.correct.mean(1))
        key = row_key(stage, decoder, args.seed)
        run.record("measures", [{**key, "measure": "gain", **gain.rounded()}])
        table.append([
            decoder, f"{old.correct.mean():.3f}", f"{new.correct.mean():.3f}",
            f"{gain.value:+.3f}", gain.bounds("+.3f"),
            f"{old.nfe:.1f}", f"{new.nfe:.1f}"])
    print_table(["greedy accuracy", "before", "after", "gain", "95 % interval", "NFE",
                 "NFE after"], table)
    print(f"  {len(before['left_to_right'].correct)} problems; NFE: forward evaluations a "
          "text")


def show_both(args, task):
    """What each way of rolling out has made of the base: from results.csv, since act 4 may
    have been another run's."""
    rows = read_csv(f"{args.out}/results.csv")
    stages = ["base", *(arm.name for arm in ARMS.values())]
    n_problems = len(task.held_out("test", args.problems))      # as act 5 has measured
    table = []
    for decoder in GREEDY.values():
        mine = matching(rows, n_problems=n_problems, **columns_of(decoder))
        found = {row["stage"]: float(row["value"]) for row in mine}
        table.append([decoder, *(number(found.get(stage, np.nan)) for stage in stages)])
    print_table(["greedy accuracy", "base", "after left to right", "after confidence"], table)


def keep_texts(args, run, task, arm, found):
    """texts.jsonl, or act 5's: what was written for the first 64 problems, and which of
    it is wrong.

    found: {stage: {name: Evaluation}}, of GREEDY's decoders.
    """
    problems = task.held_out("test", min(64, args.problems))
    lines = []
    for stage, by_name in found.items():
        for name, evaluation in by_name.items():
            for index, problem in enumerate(problems):
                line = text_line(task, problem, index, evaluation.texts[index][0],
                                 evaluation.correct[index, 0], evaluation.nfe_of[index, 0])
                lines.append(json_line(
                    {"stage": stage, "decoder": str(GREEDY[name]), **line}))
    name = "texts-confidence.jsonl" if arm.name == "confidence" else "texts.jsonl"
    run.write(name, "".join(lines).encode())


def first_rl_problem(seed):
    """Of the training split: none that pretraining has seen (the toy's don't run out)."""
    return seed * STRIDE + STRIDE // 2


def log(run, stage, step, **values):
    values = {name: round(float(value), 5) for name, value in values.items()}
    seconds = round(run.tick(), 1)
    run.record("log", [{"stage": stage, "step": step, **values, "seconds": seconds}])

# ----------------------------------------------------------------------------------------
# the story: first all that can be wrong before any work, then act after act


def prepare(args, task):
    """What a user can get wrong, before any work -> task, and the base's model or None.

    Raises ValueError or OSError.
    """
    args.device = pick_device(args.device)
    if args.width % 8:
        raise ValueError(
            f"--width {args.width} is not a multiple of 8 (4 heads of an even size)")
    if args.rollouts == 1:
        raise ValueError("--rollouts 1 means nothing here: one has no siblings")
    if args.llada:
        return prepare_llada(args)
    task = open_task(args, task)
    model = None
    if args.stage in LATER:
        model = load_base(args, task)
    return task, model


def prepare_llada(args):
    """Task and model of --llada, if this machine has the memory to train it."""
    if args.stage != "grpo" or not args.data or not args.test:
        raise ValueError("--llada goes with --stage grpo and GSM8K's --data and --test")
    if args.prompts != 1:
        raise ValueError(f"--prompts {args.prompts}: with --llada prompts are not padded, so "
                         "that a step has 1")
    source, out = Path(args.llada).resolve(), Path(args.out).resolve()
    if source.is_relative_to(out) or out.is_relative_to(source):
        raise ValueError(f"--out {args.out} and --llada {args.llada} lie in each other: take "
                         "another --out, for what is there is moved away")
    splits = read_splits(args.data, args.test)
    llada = import_llada()
    print(llada.check_memory(args.llada, args.device))
    task = llada.Chat(args.llada, llada.read_config(args.llada), args.length)
    task.use_rows(splits)
    for split in SPLITS:
        task.problem(split, 0)      # or it says that none fits
    return task, llada.load_llada(args.llada, args.device, torch.float32)


def open_task(args, task):
    """The task given, or GSM8K from the files of the flags, or the toy."""
    if bool(args.data) != bool(args.test):
        raise ValueError(
            "--data and --test go together: GSM8K's training file and its test file")
    if task is None:
        task = GSM8K.from_files(args.data, args.test, **SHAPE) if args.data else Worksheet()
    try_task(task, last=first_rl_problem(args.seed))
    return task


def load_base(args, task):
    path = f"{args.out}/base.pt"
    model, description, info = load_checkpoint(path, args.device)
    if description != task.describe():
        name = description.get("name")
        advice = "give the --data and --test that it was trained on, if any"
        if name == task.name and not args.data:
            advice = "it has other settings, call train.main with that task"
        raise ValueError(f"{path} is of another task, {short(name)}: {advice}")
    if info.get("seed") != args.seed:
        raise ValueError(f"{path} is of another seed: add --seed {info.get('seed')}")
    return model


def settings_of(args, task, *files):
    """What a resumed run must have in common with the one that was stopped."""
    elsewhere = "out", "resume", "data", "test", "llada"    # may have moved
    settings = {name: value for name, value in vars(args).items()
                if name not in elsewhere}
    settings["task"] = task.describe()
    settings["files"] = [hashlib.sha256(Path(file).read_bytes()).hexdigest()
                         for file in files if file]
    return settings


def act_of(row):
    """Whose row of a table this is: the act (a --stage) that writes it anew. (The base is
    sampled from in act 3, and at temperature 0 in act 4.)"""
    for act, arm in ARMS.items():
        if row.get("stage") == arm.name:
            return act
    if not row.get("temperature"):      # of log.csv, and what the base knows
        return "pretrain"
    return "trap" if float(row["temperature"]) else "grpo"


def begin(args, run, task):
    goes_on = args.stage in LATER and not args.llada        # from base.pt
    base = f"{args.out}/base.pt" if goes_on else None
    settings = settings_of(args, task, args.data, args.test, base)
    if args.llada:
        settings["llada"] = task.digest()
    if goes_on:
        run.begin(args.out, TABLES, settings, args.resume, files=FILES,
                  replaces=lambda row: act_of(row) == args.stage)
    else:
        run.begin(args.out, TABLES, settings, args.resume, files=FILES, anew=True)


def tell(args, run, task, model):
    """The five acts. Returns early if the run was stopped; a resumed run goes through
    them again, and what it had done takes no time."""
    show_task(args, task)
    if args.stage in ("pretrain", "all"):
        run.begin_act("pretraining")
        model = pretrain(args, run, task)
        if run.stopped:
            return
        # Is it good at lines, and poor in the head? Then there is something to find for
        # RL.
        check_base(args, run, show_base(args, run, task, model))
    if args.stage in ("trap", "all"):
        run.begin_act("trap")
        print("\n== Act 3: the flexibility trap ==")
        measure_trap(args, run, task, model, "base")
        if run.stopped:
            return
    recipe = Recipe(args.grpo_steps, args.prompts, args.rollouts, args.grpo_lr,
                    seed=args.seed, first_problem=first_rl_problem(args.seed))
    if args.stage in ("grpo", "all"):
        run.begin_act("justgrpo")
        print("\n== Act 4: JustGRPO, reinforcement learning from left to right ==")
        reinforce(args, run, task, copy.deepcopy(model), ARMS["grpo"], recipe)
        if run.stopped:
            return
    if args.stage in ("freedom", "all"):
        run.begin_act("freedom")
        print("\n== Act 5: the freedom back, the same with rollouts by confidence ==")
        reinforce(args, run, task, copy.deepcopy(model), ARMS["freedom"], recipe,
                  with_base=False)
        if not run.stopped:
            print("  What acts 4 and 5 have made of the same base:")
            show_both(args, task)


def check_base(args, run, right):
    """Nothing after it means much with a base that has not learned its lines."""
    if right >= 0.95:
        return
    message = (f"the next value is right {right:.1%} of the time, 95 % is needed: raise "
               "--steps")
    if not args.quick:
        run.finish()
        sys.exit(f"train.py: error: {message}")
    print(f"  note: {message}; --quick goes on regardless")


def draw_progress(folder):
    try:
        from experiments.progress import draw
        draw(folder, WATCHED)
    except ModuleNotFoundError:
        print("no figure is drawn: matplotlib is not installed")
    except (ImportError, ValueError) as error:      # installed, and does not work
        print(f"no figure is drawn: {error}")


@ends_quietly
def main(argv=None, task=None):
    """task: a data.Task of your own instead of the toy."""
    args = parse_flags(argv)
    with Run("train.py", argv) as run:
        task, model = prepare(args, task)
        begin(args, run, task)
        if run.finished:
            print(f"the run in {args.out} is finished")
            return
        tell(args, run, task, model)
        if run.stopped:
            return
        run.begin_act(None)         # to draw is no act's work
        draw_progress(args.out)
        seconds = run.finish()
    print(f"\n{sum(seconds.values()):.0f} s in all: {seconds}")
    if args.quick:
        print("This was --quick: everything ran, its numbers mean little.")
    if args.llada:
        print(f"Next: python sample.py --llada {args.out}/justgrpo --data {args.test} "
              f"--length {args.length}")
    elif args.stage in ("all", "grpo") and task.name in TASKS:    # sample.py knows these
        test = f" --data {args.test}" if args.data else ""
        print(f"Next: python sample.py --watch --checkpoint {args.out}/justgrpo.pt{test}")


if __name__ == "__main__":
    main()
