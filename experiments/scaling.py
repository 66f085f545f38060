"""How the time grows: of an RL step with its rollouts, of pass@n with n.

    python train.py                                     makes out/base.pt
    python experiments/scaling.py --csv scaling.csv --figure scaling.png    two minutes
    python experiments/scaling.py --quick                                   one

A point is the median of three runs. Beside the seconds stand the canvases that were
evaluated (distinct states), and those that the published loops evaluate: rows times
length, once for the rollouts and once for the loss. Finished points are in the CSV at
once, and are not measured again.
"""
import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm

from data import Worksheet
from eval_gsm8k import evaluate
from experiments import lab
from grpo import advantages, judge, policy_losses
from runs import ends_quietly, read_csv, write_csv
from sample import Decoder, generate, load_checkpoint, pick_device

COLUMNS = ["what", "x", "seconds", "states", "published_states"]
N_PROBLEMS = 16
RL = "rollouts a prompt"
ORDERS = "left_to_right", "confidence", "top_probability", "random"
SWEEPS = {RL: [2, 4, 8, 16, 32, 64],
          **{f"pass@n, {order}": [1, 4, 16, 64, 256, 1024] for order in ORDERS},
          "pass@n, random": [1, 4, 16, 64]}     # nothing is shared: minutes


class Counted(torch.nn.Module):
    """A model that counts the canvases that it is run on."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.n_states = model, model.config, 0

    def forward(self, tokens, wanted=None):
        self.n_states += len(tokens)
        return self.model(tokens, wanted)


def rl_step(model, task, n_rollouts):
    """A step of grpo.grpo, less the optimizer's: rollouts, rewards, loss, gradients."""
    problems = [problem for problem in task.problems("train", 9_000_000, N_PROBLEMS)
                for _ in range(n_rollouts)]
    prompt = task.prompts([p["question"] for p in problems])
    prompt = prompt.to(next(model.parameters()).device)
    torch.manual_seed(0)    # of generate's draws
    rollout = generate(model, prompt, task.completion_length,
                       Decoder("left_to_right", temperature=1.0))
    reward = judge(task, rollout, problems).view(N_PROBLEMS, n_rollouts)
    advantage = advantages(reward).flatten().to(prompt.device)
    for loss in policy_losses(model, prompt, rollout.tokens, rollout.rank, advantage):
        loss.backward()


def measure(model, task, what, x, n_runs):
    """One point -> a row of the CSV."""
    seconds = []
    for _ in range(n_runs):
        counted = Counted(model)
        start = time.perf_counter()
        if what == RL:
            rl_step(counted, task, x)
        else:
            decoder = Decoder(what.removeprefix("pass@n, "), temperature=0.6)
            evaluate(counted, task, task.held_out("test", N_PROBLEMS), decoder, x)
        if model.cos.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    published = N_PROBLEMS * x * task.completion_length * (2 if what == RL else 1)
    return {"what": what, "x": x, "seconds": round(statistics.median(seconds), 4),
            "states": counted.n_states, "published_states": published}


def draw(rows, path):
    """Seconds on the left, evaluated canvases on the right."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axis, column in zip(figure.subplots(1, 2), ("seconds", "states")):
        for what, style in zip(SWEEPS, lab.STYLES):
            points = [(float(row["x"]), float(row[column]))
                      for row in rows if row["what"] == what]
            axis.loglog(*zip(*points), label=what, markersize=4, **style)
        axis.set(xlabel="rollouts a prompt, or n", ylabel=column)
    axis.legend(fontsize=8)
    lab.save(figure, path)


@ends_quietly
def main(argv=None):
    parser = argparse.ArgumentParser(description="How the time grows with all sizes.")
    add = parser.add_argument
    add("--quick", action="store_true", help="two points a curve, one run each")
    add("--out", default="out", help="folder with train.py's base.pt")
    add("--device", default="cpu", help="cpu or cuda")
    add("--csv", help="rows; default: scaling.csv, with --quick scaling-quick.csv")
    add("--figure", help="draw the rows to this file (needs matplotlib)")
    args = parser.parse_args(argv)
    # Quick points must not be mistaken for finished ones.
    path = args.csv or ("scaling-quick.csv" if args.quick else "scaling.csv")
    try:
        base, _, _ = load_checkpoint(f"{args.out}/base.pt", pick_device(args.device))
        rows = read_csv(path, COLUMNS) if Path(path).exists() else []
        write_csv(path, COLUMNS, rows)      # fails now, if it must
    except (OSError, ValueError) as error:
        parser.error(str(error))
    n_points, n_runs = (2, 1) if args.quick else (None, 3)
    there = {(row["what"], row["x"]) for row in rows}
    missing = [(what, x) for what, xs in SWEEPS.items() for x in xs[:n_points]
               if (what, str(x)) not in there]
    for what, x in tqdm(missing):
        rows.append(measure(base, Worksheet(), what, x, n_runs))
        write_csv(path, COLUMNS, rows)
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    main()
