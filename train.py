"""The whole story in four acts: the task, pretraining, the flexibility trap, JustGRPO.

    python train.py             12 minutes on two cores of an old CPU
    python train.py --quick     under a minute, for a first look; its numbers mean little
    python train.py --data train.jsonl --test test.jsonl      the same on the real GSM8K
    python train.py --stage grpo --arm confidence   another method in JustGRPO's place: see grpo.py

Leaves in --out: base.pt, justgrpo.pt (or ARM.pt), log.csv (training), results.csv (accuracies),
measures.csv (the rest), summary.json, state.pt (what --resume goes on from; --help), and
progress.png if matplotlib is installed. Same seed and threads on a CPU: the same files, times
apart, also after Ctrl-C, a crash or kill -9, and --resume; on a GPU only the seed is promised."""
import copy
import hashlib
import json
import math
import os
import platform
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import mode
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm
from data import GSM8K, SPLITS, Toy, plain
from eval_gsm8k import (MEASURE_COLUMNS, RESULT_COLUMNS, evaluate, interval, pass_at_k,
                        print_table, read_csv, result_rows, write_csv)
from grpo import ARMS, advantages, asked, choose, grpo_loss, log_prob_table
from model import (MaskedDiffusionLM, ModelConfig, diffusion_loss, draw_masks, is_sound, load,
                   load_checkpoint, save, save_checkpoint, write_whole)
from sample import Decoder, generate, new_parser, pick_device, text_length

PRETRAINING = "steps", "batch", "lr", "width", "layers", "dtype"
FLAGS = {   # numbers worth turning (for the toy, with --quick, with --data, with both), and help
    "steps": (1300, 60, 3000, 10, "pretraining steps"),
    "batch": (64, 32, 16, 8, "pretraining rows a step"),
    "lr": (0.006, "pretraining learning rate (Muon; AdamW has half)"),
    "width": (128, 64, 128, 64, "a multiple of 8"), "layers": (3, 2, 3, 2, "of the network"),
    "grpo-steps": (60, 3, 4, 1, "GRPO steps"), "prompts": (16, 4, 4, 1, "prompts a GRPO step"),
    "rollouts": (8, 4, 4, 4, "rollouts a prompt"), "grpo-lr": (5e-5, "GRPO learning rate"),
    "adam-eps": (1e-8, "of GRPO's AdamW"), "rollout-temperature": (1.0, "also the likelihood's"),
    "fraction": (0.25, "of a batch's terms"), "updates-per-batch": (1, "above 1: a ratio, a clip"),
    "clip-low": (0.2, "the ratio is kept above 1 less this"), "clip-high": (0.2, "below 1 plus it"),
    "problems": (400, 32, 32, 2, "test problems for greedy accuracy"),
    "trap-problems": (64, 8, 8, 1, "test problems for pass@k"),
    "samples": (32, 8, 8, 2, "completions a problem for pass@k")}
CHOICES = {
    "arm": (ARMS, "what act 4 trains by: " + "; ".join(f"{a}: {ARMS[a][3]}" for a in ARMS)),
    "positions": (["all", "top_entropy", "random"], "all, or a --fraction: the least certain, any"),
    "advantage": (["std", "none", "leave_one_out"], "GRPO's, Dr. GRPO's, RLOO's"),
    "loss-norm": (["token", "sequence", "constant"], "over a batch's tokens, a text's, all places"),
    "grpo-schedule": (["linear", "constant"], "the rate falls to zero, or (the paper's) stays")}
SHAPE = dict(n_merges=1792, prompt_length=112, completion_length=128)    # GSM8K's canvas
TRAP = [Decoder(order, block_length=block, temperature=0.6) for order, block in
        [("left_to_right", None), ("confidence", None), ("confidence", 8),
         ("top_probability", None), ("random", None)]]
GREEDY = [Decoder(), Decoder("confidence"), Decoder("confidence", block_length=8)] + [
    Decoder("top_probability", select, value) for select, value in
    [("threshold", 0.9), ("entropy_bound", 0.1), ("k", 2), ("k", 4)]]
WATCHED = {"left_to_right": GREEDY[0], "confidence": GREEDY[1], "threshold": GREEDY[3]}
TABLES = {"results": RESULT_COLUMNS, "measures": MEASURE_COLUMNS, "log": [
    *"stage step loss tokens_per_second reward signal entropy length clipped seconds".split(),
    *WATCHED]}
STRIDE = 10**7      # seed s trains on the problems from s * STRIDE on
SAVE_EVERY = 10     # seconds of work
STOP = []           # the signal that asked for it

def show_task(args, task):
    print("\n== Act 1: the task ==")
    for problem in task.problems("test", 0, 3):
        texts = problem["solution"].split("\n")
        if task.n_steps:        # with every step and with none; a bar at each fork
            ids = task.completions([task.solution(problem, n) for n in (task.n_steps, 0)])
            texts = ["".join("|" * fork + task.text([token]) for token, fork in zip(*row))
                     for row in zip(ids.tolist(), task.forks(ids).tolist())]
        print("\n  " + "\n    ".join(map(plain, [problem["question"].strip(), *texts])))
    print(f"\n  prompt {task.prompt_length} tokens, completion {task.completion_length}, vocabulary"
          f" {task.tokenizer.n_vocab}; seed {args.seed}")
    for split in SPLITS:
        left_out = task.too_long.get(split, 0)
        print(f"  {split}: {task.size(split) or 'endless'} problems, none of them in another split"
              + f"; {left_out} rows are too long for this canvas and left out" * (left_out > 0))
    print("Look at the bars: there the text either goes on or jumps to the answer; both are right."
          if task.n_steps else "The forks are not known here; what needs them is left out.")

def pretrain(args, task):
    print("\n== Act 2: pretraining a masked-diffusion model from scratch ==")
    torch.manual_seed(args.seed)
    config = ModelConfig(
        task.tokenizer.n_vocab, task.mask_id, task.eos_id, n_layer=args.layers, n_embd=args.width,
        n_hidden=3 * args.width, max_length=2 * task.prompt_length + task.completion_length)
    model = MaskedDiffusionLM(config).to(args.device)
    print(f"  {sum(p.numel() for p in model.parameters()):,} parameters, on {args.device}")
    # Muon (K. Jordan 2024) on the blocks' matrices, AdamW on the rest: embedding, head, norms.
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [torch.optim.Muon(matrices, lr=args.lr, momentum=0.95, weight_decay=0.01),
                  torch.optim.AdamW(rest, lr=args.lr / 2, betas=(0.9, 0.98), weight_decay=0.0)]
    rng = torch.Generator().manual_seed(args.seed)
    memory = {"losses": [], "seconds": 0.0}
    loop = steps(args, "base", args.steps, rng, memory, model, *optimizers)
    for step in (bar := tqdm(loop, "pretraining", args.steps, initial=at(args, "base"))):
        start = time.time()
        problems = task.problems("train", args.seed * STRIDE + step * args.batch, args.batch)
        if task.n_steps and step < args.steps // 2:     # learn to make every step, then to skip
            problems = [{**p, "solution": task.solution(p, task.n_steps)} for p in problems]
        prompt = task.prompts([p["question"] for p in problems]).to(args.device)        # (B, P)
        completion = task.completions([p["solution"] for p in problems]).to(args.device)  # (B, L)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = diffusion_loss(model, prompt, completion, *draw_masks(*completion.shape, rng))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)      # 1/t has a long tail
        # Warm up over 50 steps, hold, fall to zero over the last half.
        scale = min((step + 1) / 50, 1, 2 * (args.steps - step) / args.steps)
        for optimizer, peak in zip(optimizers, (args.lr, args.lr / 2)):
            optimizer.param_groups[0]["lr"] = peak * scale
            # Muon rounds to bfloat16, which CPUs may only emulate: 3/4 of a step's time on some.
            with patch.object(torch.Tensor, "bfloat16", torch.Tensor.float):
                optimizer.step()
            optimizer.zero_grad()
        check_finite(args, "base", step, optimizers[0], model, loss.item(), norm)
        memory["losses"] = [*memory["losses"][-19:], loss.item()]
        memory["seconds"] += time.time() - start
        if (step + 1) % 20 == 0 or step + 1 == args.steps:
            loss, seconds = np.mean(memory["losses"]), memory["seconds"]
            speed = (step + 1) * (prompt.numel() + completion.numel()) / seconds
            bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
            log(args, "base", step + 1, loss=loss, tokens_per_second=speed, seconds=seconds)
    save_checkpoint(f"{args.out}/base.pt", model, task.describe(), stage="base", seed=args.seed,
                    flags={name: getattr(args, name) for name in PRETRAINING})
    probe(args, task, model.eval())
    return model

@torch.no_grad()
def probe(args, task, model):           # the base: held-out loss; good at steps, bad in the head?
    problems = task.held_out("validation", args.problems)
    prompt = task.prompts([p["question"] for p in problems]).to(args.device)            # (B, P)
    completion = task.completions([p["solution"] for p in problems]).to(args.device)    # (B, L)
    rng = torch.Generator().manual_seed(0)
    nll = np.mean([diffusion_loss(model, prompt, completion, *draw_masks(*completion.shape, rng))
                   .item() for _ in range(8)])
    common = mode(p["answer"] for p in task.held_out("train", 5000))
    same = np.mean([p["answer"] == common for p in task.held_out("test", args.problems)])
    print(f"  held-out masked NLL {nll:.3f} nats a token ({len(problems)} problems); always "
          f"answering {plain(common)} would be right {same:.1%} of the time")
    rows = {"masked_nll": nll, "majority_answer": same,
            **(probe_steps(args, task, model, problems, prompt) if task.n_steps else {})}
    record(args, "measures", [{"stage": "base", "measure": name, "value": round(float(v), 5),
                               "seed": args.seed} for name, v in rows.items()])
    right = np.mean([v for name, v in rows.items() if name.startswith("next_value")] or [1])
    if right < 0.95:
        message = f"the next value is right {right:.1%} of the time, 95 % is needed: raise --steps"
        if not args.quick:
            finish(args)
            sys.exit(f"train.py: error: {message}")
        print(f"  note: {message}; --quick goes on regardless")

def probe_steps(args, task, model, problems, prompt):
    """Next value given a correct prefix; P(go on) at each fork; the answer by steps written."""
    def predict(n_written, at):     # what the model says at position `at`, given the text before
        text = task.completions([task.solution(p, n_written) for p in problems]).to(args.device)
        hidden = torch.arange(text.shape[1], device=args.device) >= at
        logits = model(torch.cat([prompt, text.masked_fill(hidden, task.mask_id)], dim=1))
        p = logits[:, task.prompt_length + at].softmax(-1)                             # (B, V)
        return ((p.argmax(-1) == text[:, at]).float().mean().item(),    # right,
                1 - p[:, task.hash_id].mean().item())                   # goes on
    n, fork = task.n_steps, task.fork_position
    rows = {"next_value": [predict(n, fork(s + 1) - 1)[0] for s in range(n)],
            "go_on": [predict(n, fork(s))[1] for s in range(n)],
            "true_go_on": [1 - task.direct] + [1 - task.skip] * (n - 1),
            "answer_in_head": [predict(s, fork(s) + 1)[0] for s in range(n + 1)]}
    print_table(["at step", *range(n + 1)],
                [[name, *(f"{v:.3f}" for v in values)] for name, values in rows.items()])
    print("next_value: right, given a correct prefix; go_on: probability at the fork, and the true "
          "one;\nanswer_in_head: right after that many steps. Look at the first row and the last.")
    return {f"{name}_{s}": v for name, values in rows.items() for s, v in enumerate(values)}

def measure_all(args, task, model, stage, decoders, n_problems, n_samples=1, ks=(1,)):
    """On the same test problems; -> Decoder: (correct (Q, n), rows of results, name: measure)."""
    problems, out = task.held_out("test", n_problems), {}
    for decoder in decoders:
        done, loop = args.state["done"], f"{stage}, {decoder}, {decoder.temperature}, {n_samples}"
        if loop not in done:
            result = evaluate(model, task, problems, decoder, n_samples, args.seed,
                              name=str(decoder), walk=lambda *rest: steps(args, loop, *rest))
            done[loop] = result["correct"], *result_rows(stage, decoder, result, args.seed, ks)
            del args.state["loops"][loop]       # its texts may be many
        correct, rows, measures = done[loop]
        out[decoder] = (torch.as_tensor(correct).numpy(), rows,
                        {m["measure"]: m["value"] for m in measures})
        record(args, "results", rows)
        record(args, "measures", measures)
    return out

def trap(args, task, model, stage):     # pass@k of every order: the table, and what it says
    print("\n== Act 3: the flexibility trap ==" if stage == "base" else "  And pass@k again:")
    ks, table = [2**i for i in range(20) if 2**i <= args.samples], []
    out = measure_all(args, task, model, stage, TRAP, args.trap_problems, args.samples, ks)
    extra = "distinct", "bypass_fork", "entropy_fork", "early_end"
    for decoder, (_, rows, measures) in out.items():
        table += [[decoder, *(f"{r['value']:.3f}" for r in rows),
                   *(f"{measures[m]:.2f}" for m in extra if m in measures)],
                  ["   95 % interval", *(f"{r['low']:.2f}-{r['high']:.2f}" for r in rows)]]
    print_table(["pass@k at T=0.6, k =", *ks, *(m for m in extra if m in measures)], table)
    for decoder in TRAP[1:]:
        (ltr, *_), (correct, rows, _) = out[TRAP[0]], out[decoder]
        lead = {k: {**rows[0], "measure": f"lead_of_ltr_at_{k}", **interval(
            pass_at_k(ltr, k) - pass_at_k(correct, k))} for k in ks}        # paired by problem
        record(args, "measures", [*lead.values()])
        print(f"  {decoder}: {crossing(lead)}")

def overtakes(lead):    # the first k with left to right ahead (by less is printed +0.000), or None
    return next((k for k, row in lead.items() if float(row["value"]) >= 0.0005), None)

def crossing(lead):     # a sentence; lead: k -> how far left to right is ahead at k, with interval
    over = overtakes(lead)
    text = ("no crossing, left to right is never ahead" if over is None else
            "no crossing, left to right is ahead from the start" if over == min(lead) else
            f"left to right overtakes at k={over}")
    for k in sorted({min(lead), over or max(lead)}):
        value, low, high = (lead[k][name] for name in ("value", "low", "high"))
        clear = "not clear" if low <= 0 <= high else "clear"
        text += f"; {value:+.3f} at k={k} ({low:+.3f} to {high:+.3f}, {clear} of zero)"
    return text + "."

def validate(args, task, model, step):  # parallel decoders suffer first from large steps
    problems = task.held_out("validation", min(128, args.problems))
    row = {name: evaluate(model, task, problems, decoder)["correct"].mean()
           for name, decoder in WATCHED.items()}
    tqdm.write(f"  step {step}, validation: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()))
    return row

def rollouts(args):     # the arm's decoder
    block, temperature = args.rollout_block_length, args.rollout_temperature
    return Decoder(*ARMS[args.arm][:2], block_length=block, temperature=temperature)

def grpo(args, task, model, watch=validate):    # arXiv 2601.15165, section 3, in any arm's orders
    optimizer = torch.optim.AdamW(model.parameters(), eps=args.adam_eps, weight_decay=0.0)
    kind, generator = ARMS[args.arm][2], torch.Generator().manual_seed(args.seed)
    Q, G, L = args.prompts, args.rollouts, task.completion_length
    memory = {"seconds": 0.0, "unmoved": 0}
    how = {"temperature": args.rollout_temperature,
           "lcr_block": (args.rollout_block_length or L) if kind == "exact" else None}
    loop = steps(args, args.arm, args.grpo_steps, generator, memory, model, optimizer)
    for step in (bar := tqdm(loop, args.arm, args.grpo_steps, initial=at(args, args.arm))):
        if step == 0:
            log(args, args.arm, 0, **watch(args, task, model, 0))
        start, loss, clipped, n = time.time(), 0.0, [], args.updates_per_batch
        memory["unmoved"] += 1
        first = args.seed * STRIDE + STRIDE // 2 + step * Q     # of the toy's, not seen before
        problems = [p for p in task.problems("train", first, Q) for _ in range(G)]
        prompt = task.prompts([p["question"] for p in problems]).to(args.device)        # (Q*G, P)
        rollout = generate(model, prompt, L, rollouts(args),
                           lambda: torch.rand(Q * G, L, generator=generator))           # roll out
        reward = torch.tensor([task.reward(task.text(tokens), p["answer"]) for tokens, p in
                               zip(rollout.tokens.cpu(), problems)])                    # (Q*G,)
        advantage = advantages(reward.view(Q, G), args.advantage).to(args.device)   # judge (Q, G)
        length = text_length(rollout.tokens, task.eos_id)                               # (Q*G,)
        *what, scale = asked(kind, prompt, rollout, length, task.mask_id, generator=generator)
        if args.positions != "all":
            scale = choose(args.positions, args.fraction, rollout.entropy, scale, generator)
        right = (reward > 0).to(args.device)
        old = log_prob_table(model, *what, weight=scale, **how) if n > 1 else None
        left = 1 - step / args.grpo_steps if args.grpo_schedule == "linear" else 1
        optimizer.param_groups[0]["lr"] = args.grpo_lr * left
        for _ in range(n):
            pieces = grpo_loss(model, *what, advantage.flatten(), scale=scale,          # recompute
                               norm=args.loss_norm, old=old, clipped=clipped,
                               clip=(args.clip_low, args.clip_high), **how)
            if kind == "diffusion":     # no advantage, no likelihood: the right texts are learned
                pieces = [diffusion_loss(model, prompt[right], rollout.tokens[right], *draw_masks(
                    int(right.sum()), L, generator))] if right.any() else []
            for piece in pieces:                                                        # push
                piece.backward()        # a few canvases at a time; gradients add up
                loss += piece.item()
            if any(p.grad is not None for p in model.parameters()):
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()        # not without signal: Adam would move on momentum alone
                check_finite(args, args.arm, step, optimizer, model, loss, norm)
                memory["unmoved"] = 0
            optimizer.zero_grad()
        row = {"reward": reward.mean(), "signal": advantage.any(1).float().mean(),
               "entropy": rollout.entropy[rollout.rank < L].mean(), "length": length.float().mean()}
        bar.set_postfix_str(", ".join(f"{name} {value:.3f}" for name, value in row.items()))
        row["clipped"] = torch.cat(clipped).float().mean() if clipped else 0
        memory["seconds"] += time.time() - start
        if memory["unmoved"] and memory["unmoved"] % 50 == 0:
            tqdm.write(f"  step {step + 1}: for 50 steps no group had a right and a wrong rollout")
        if (step + 1) % 5 == 0 or step + 1 == args.grpo_steps:
            row |= watch(args, task, model, step + 1)
        log(args, args.arm, step + 1, loss=loss / n, seconds=memory["seconds"], **row)
    save_checkpoint(f"{args.out}/{args.arm}.pt", model, task.describe(), stage=args.arm,
                    seed=args.seed)

def compare(args, before, after):       # on the same problems: paired differences
    table = []
    for decoder in GREEDY:
        (first, [old], was), (then, [new], now) = before[decoder], after[decoder]
        gain = {**new, "measure": "gain", **interval(then.mean(1) - first.mean(1))}
        record(args, "measures", [gain])
        table.append([decoder, f"{old['value']:.3f}", f"{new['value']:.3f}",
                      f"{gain['value']:+.3f}", f"{gain['low']:+.3f} to {gain['high']:+.3f}",
                      f"{old['nfe']:.1f}", f"{new['nfe']:.1f}",
                      *(f"{measures['tokens_per_evaluation']:.2f}" for measures in (was, now))])
    print_table(["greedy accuracy", "before", "after", "gain", "95 % interval", "NFE", "after",
                 "tokens/NFE", "after"], table)
    print(f"  {len(then)} problems. A jump to the answer has a small NFE: compare tokens/NFE.")

def record(args, name, rows):           # every finished row is on disk at once
    path = f"{args.out}/{name}.csv"
    write_csv(path, TABLES[name], read_csv(path) + rows)

def log(args, stage, step, **values):
    values = {name: round(float(value), 5) for name, value in values.items()}
    args.state["log"].append({"stage": stage, "step": step, **values})
    record(args, "log", args.state["log"][-1:])

def at(args, loop):     # the step that the state has it at
    return args.state["loops"].get(loop, {"step": 0})["step"]

def steps(args, loop, n, generator, memory, *parts):
    """Yields 0 ... n-1, in a run resumed the rest of them. Between two steps all that the loop goes
    on from (its generator, a dict, the model and its optimizers) is put into the state, if due."""
    if was := args.state["loops"].get(loop):
        generator.set_state(was["generator"])
        memory.update(was["memory"])
        for part, values in zip(parts, was["parts"]):   # of a loop that has ended, the model only
            part.load_state_dict(values)
    for step in range(at(args, loop), n + 1):
        due = STOP or time.monotonic() > args.state["time"] + SAVE_EVERY
        if due or step == n:
            args.state["loops"][loop] = copy.deepcopy({
                "step": step, "generator": generator.get_state(), "memory": memory,
                "parts": [part.state_dict() for part in parts[:1 if step == n else None]]})
        if due:
            keep(args)
        if step < n:
            yield step

def keep(args):         # the state on disk; and here a run may stop
    args.state["time"], before = time.monotonic(), args.state["time"]
    args.state["clock"] += args.state["time"] - before
    if args.state["settings"]:      # not in a script that calls the loop alone
        save(f"{args.out}/state.pt", args.state)
    if STOP:
        raise KeyboardInterrupt

def finish(args):
    args.state |= {"finished": True, "loops": {}, "done": {}}
    save(f"{args.out}/state.pt", args.state)

def check_finite(args, loop, step, optimizer, model, loss, norm):
    if not math.isfinite(loss + norm) or not is_sound(model.state_dict()):
        raise FloatingPointError(
            f"no number, or a weight above 1e4, in step {step + 1} of {loop} (loss {loss:g}, "
            f"gradient {norm:g}, learning rate {optimizer.param_groups[0]['lr']:g}): {args.out}/"
            f"state.pt is good, of step {at(args, loop)}: remove it, start anew with a lower rate")

def stop(number, _):    # Ctrl-C, SIGTERM: the step ends first; the second time, at once
    if STOP:
        os._exit(128 + number)
    STOP.append(number)
    with suppress(OSError):
        os.write(2, b"\nstopping after this step; once more to stop at once\n")

def lock(folder, wait=False):   # -> what holds the lock until it is closed, and None on Windows
    with suppress(ImportError):
        import fcntl
        holder = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(f"another run writes to {folder}: take another --out") from None
        return holder

def begin(args, task):  # args.state: new, or with --resume the old one, of the same settings
    elsewhere = "out", "resume", "data", "test", "state", "lock"    # a resume may have others
    files = [args.data, args.test, f"{args.out}/base.pt" * (args.stage in ("trap", "grpo"))]
    settings = {**{k: v for k, v in vars(args).items() if k not in elsewhere},
                "files": [hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files if f],
                "task": task.describe(), "threads": torch.get_num_threads(),
                "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"}
    path, args.state["settings"] = Path(args.out, "state.pt"), settings
    if not path.exists():
        return args.resume and print(f"{args.out} has nothing to go on from: a new run begins")
    old = load(path, lambda state: {name: state[name] for name in args.state})
    if not args.resume and not old["finished"]:
        raise ValueError(f"{args.out} has an unfinished run: add --resume, or remove {path}")
    for name, now in settings.items() if args.resume else ():
        if now != (was := old["settings"].get(name)):
            raise ValueError(f"no --resume: in {path} {name} was {str(was)[:40]}, now it is "
                             f"{str(now)[:40]}: give the old value (threads: OMP_NUM_THREADS)")
    args.state = {**old, "time": time.monotonic()} if args.resume else args.state

def parse_flags(argv):
    parser = new_parser("Pretrain, measure the flexibility trap, train by JustGRPO, measure again.")
    add = parser.add_argument
    add("--out", default="out", help="folder for checkpoints and tables")
    add("--stage", default="all", choices=["pretrain", "trap", "grpo", "all"],
        help="one act only; the later ones go on from the files in --out, pretrain starts anew")
    for name, (choices, text) in CHOICES.items():
        add(f"--{name}", default=[*choices][0], choices=choices, help=text)
    add("--rollout-block-length", type=int, help="rollouts finish blocks of so many tokens")
    add("--resume", action="store_true", help="go on with the run in --out that was stopped, with "
        "the same flags; its state is kept every 10 seconds")
    add("--quick", action="store_true", help="everything tiny; its numbers mean little")
    add("--data", help="train on this GSM8K file (JSON lines) instead of the toy")
    add("--test", help="and test on this one")
    add("--dtype", default="float32", choices=["float32", "bfloat16"], help="of pretraining only")
    for name, (default, *_, text) in FLAGS.items():
        add(f"--{name}", type=type(default), default=default, help=text)
    early, _ = parser.parse_known_args(argv)
    case = bool(early.quick) + 2 * bool(early.data)
    parser.set_defaults(**{k.replace("-", "_"): v[case if v[2:] else 0] for k, v in FLAGS.items()})
    args = parser.parse_args(argv)
    state = {"settings": None, "finished": False, "log": [], "loops": {}, "done": {}, "seconds": {},
             "clock": 0.0, "time": time.monotonic()}
    vars(args).update(state=state, lock=None)
    return parser, args

def check(parser, args):    # act 4's flags: what means nothing together
    for names, meant, reason in (
            ("advantage loss_norm positions fraction updates_per_batch clip_low clip_high",
             args.arm != "rejection", "arm rejection has no advantage, ratio or choice of tokens"),
            ("rollouts", args.rollouts > 1 or args.arm == "rejection", "one has no siblings"),
            ("rollout_block_length", "left" not in ARMS[args.arm][0], "left to right has none"),
            ("clip_low clip_high", args.updates_per_batch > 1, "--updates-per-batch 1 has ratio 1"),
            ("fraction", args.positions != "all", "--positions all takes every token")):
        for name in names.split():
            if not meant and getattr(args, name) != parser.get_default(name):
                raise ValueError(f"--{name.replace('_', '-')} means nothing here: {reason}")

def prepare(args, task):        # what a user can get wrong, before any work; -> task, model or None
    args.device = pick_device(args.device)
    if bad := [f for f in FLAGS if not 0 < getattr(args, f.replace("-", "_")) < float("inf")
               or f == "fraction" and args.fraction > 1]:
        raise ValueError(f"--{bad[0]} must be above 0" + " and at most 1" * (bad[0] == "fraction"))
    torch.Generator().manual_seed(args.seed)        # ValueError: beyond 64 bits
    if args.width % 8:
        raise ValueError(f"--width {args.width} is not a multiple of 8 (4 heads of an even size)")
    if bool(args.data) != bool(args.test):
        raise ValueError("--data and --test go together: GSM8K's training file and its test file")
    task = task or (GSM8K.from_files(args.data, args.test, **SHAPE) if args.data else Toy())
    if args.rollout_block_length not in (None, *range(1, task.completion_length + 1)):
        raise ValueError(f"--rollout-block-length must be from 1 to {task.completion_length}")
    for split in SPLITS:
        task.problem(split, 0)      # ValueError: no row is left, or all of them are too long
    model, base = None, f"{args.out}/base.pt"
    if args.stage in ("trap", "grpo"):
        model, description, info = load_checkpoint(base, args.device)
        vars(args).update({k: v for k, v in info.get("flags", {}).items() if k in PRETRAINING})
        if (description, info.get("seed")) != (task.describe(), args.seed):
            raise ValueError(f"{base} is of another task or seed: add --seed {info.get('seed')}, "
                             "and its --data and --test, if any")
    Path(args.out).mkdir(parents=True, exist_ok=True)
    args.lock = lock(args.out)
    begin(args, task)
    if args.state["finished"]:
        print(f"the run in {args.out} is finished")
        sys.exit(0)
    for left in Path(args.out).glob("*.[0-9]*.tmp"):    # by a kill in the midst of writing
        left.unlink()
    keep(args)
    for arm in ARMS if not model and not args.state["loops"] else ():
        Path(args.out, f"{arm}.pt").unlink(missing_ok=True)     # of another base
    def is_mine(row):           # this stage writes it anew
        t = row.get("temperature") if row.get("stage") == "base" else None
        return t == "0.6" if args.stage == "trap" else t == "0.0" or row.get("stage") == args.arm
    for name in TABLES:         # fails now, if it must; old rows go with the old base
        path = Path(args.out, f"{name}.csv")
        rows = read_csv(path) if model and path.exists() else []
        rows = [row for row in rows if not is_mine(row)]
        write_csv(path, TABLES[name], rows + (args.state["log"] if name == "log" else []))
    return task, model

def run(args, task, model):             # the four acts; -> seconds of each
    seconds = args.state["seconds"]
    def end(act):
        keep(args)
        seconds.setdefault(act, args.state["clock"])
    show_task(args, task)
    if args.stage in ("pretrain", "all"):
        model = pretrain(args, task)
        end("pretraining")
    if args.stage in ("trap", "all"):
        trap(args, task, model, "base")
        end("trap")
    if args.stage in ("grpo", "all"):
        print(f"\n== Act 4: reinforcement learning, {args.arm} ({ARMS[args.arm][3]}) ==")
        before = measure_all(args, task, model, "base", GREEDY, args.problems)
        grpo(args, task, model)
        compare(args, before, measure_all(args, task, model, args.arm, GREEDY, args.problems))
        trap(args, task, model, args.arm)
        end(args.arm)
    return dict(zip(seconds, np.diff([0, *seconds.values()]).round(1).tolist()))

def summarize(args, seconds):           # a later stage adds its seconds to the earlier ones'
    path = Path(args.out, "summary.json")
    with suppress(OSError, ValueError, LookupError, TypeError):     # there is none, or another kind
        if args.stage in ("trap", "grpo"):
            seconds = {**json.loads(path.read_text(encoding="utf-8"))["seconds"], **seconds}
    write_whole(path, json.dumps({
        "settings": args.state["settings"], "seconds": seconds,
        "machine": platform.platform(), "python": sys.version,
        "headline": [row for row in read_csv(f"{args.out}/results.csv") if row["k"] == "1"]},
        indent=1).encode())
    try:
        from experiments.progress import draw
        draw(args.out, args.arm)
    except (ImportError, ValueError):
        print("progress.png is not drawn: matplotlib is not installed, or does not work")

def main(argv=None, task=None):         # task: a data.Task of your own instead of the toy
    parser, args = parse_flags(argv)
    began, handlers = False, {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        check(parser, args)
        task, model = prepare(args, task)
        began = True
        seconds = run(args, task, model)
        summarize(args, seconds)
        finish(args)
    except (ValueError, OSError, FloatingPointError) as error:
        if began and isinstance(error, ValueError):     # a mistake of ours
            raise
        more = "; when that is mended, --resume goes on" * (began and isinstance(error, OSError))
        parser.exit(1 if began else 2, f"{parser.prog}: error: {plain(str(error))}{more}\n")
    except KeyboardInterrupt:
        flags = [flag for flag in (sys.argv[1:] if argv is None else argv) if flag != "--resume"]
        print(f"\nstopped; go on with the same flags and --resume: {shlex.join(flags)} --resume")
        sys.exit(128 + (STOP or [signal.SIGINT])[0])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        STOP.clear()
        args.lock and os.close(args.lock)
    print(f"\n{sum(seconds.values()):.0f} s in all: {seconds}" +
          "\nThis was --quick: everything ran, its numbers mean little." * args.quick)
    test = f" --data {args.test}" if args.data else ""
    if args.stage in ("all", "grpo") and task.name in ("toy", "gsm8k"):     # what sample.py knows
        print(f"Next: python sample.py --watch --checkpoint {args.out}/{args.arm}.pt{test}")

if __name__ == "__main__":
    main()
