"""How the time of an RL step grows with rollouts, canvas, layers, width; pass@n with n.

    python train.py                                     makes out/base.pt
    python experiments/scaling.py --csv scaling.csv --figure scaling.png    ten minutes
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
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm

from data import Toy
from eval_gsm8k import evaluate
from experiments import lab
from grpo import advantages, judge, policy_losses
from model import MaskedDiffusionLM
from runs import read_csv, write_csv
from sample import Decoder, generate, load_checkpoint

COLUMNS = ["what", "x", "seconds", "states", "published_states"]
N_PROBLEMS = 16
SWEEPS = {"rollouts a prompt": [2, 4, 8, 16, 32, 64], "layers": [1, 2, 3, 6, 12],
          "completion length": [22, 26, 30, 34, 38], "width": [64, 128, 256, 512],
          "pass@n": [1, 4, 16, 64, 256, 1024]}
QUICK = {"rollouts a prompt": [4, 8], "layers": [3, 6], "completion length": [22, 30],
         "width": [64, 128], "pass@n": [1, 16]}
ORDERS = "left_to_right", "confidence", "top_probability", "random"


class Sized(torch.nn.Module):
    """A fresh network of another size does the work; the base answers, so that all sizes
    meet the same states. Counts the canvases, and the seconds of answering, to be taken
    off."""

    def __init__(self, base, **size):
        super().__init__()
        torch.manual_seed(0)
        self.base, self.config = base, replace(base.config, **size)
        self.worker = None
        if self.config != base.config:
            if "n_embd" in size:
                self.config.n_hidden = 3 * size["n_embd"]
            self.worker = MaskedDiffusionLM(self.config).to(base.cos.device)
        self.n_states, self.answering = 0, 0.0

    def forward(self, tokens, wanted=None):
        self.n_states += len(tokens)
        if self.worker is None:
            return self.base(tokens, wanted)
        work = self.worker(tokens, wanted)
        if torch.is_grad_enabled():     # the loss: its time matters, not its value
            return work
        start = time.perf_counter()
        answer = self.base(tokens, wanted)
        self.answering += time.perf_counter() - start
        return answer


@dataclass
class Point:
    what: str
    x: int
    model: Sized
    n_rollouts: int = 8
    length: int = Toy().completion_length   # a longer canvas only has more end-of-text

    def run(self, task):
        """Do the work -> how many states the published loops evaluate for it."""
        if self.what.startswith("pass@n"):
            decoder = Decoder(self.what.split(", ")[1], temperature=0.6)
            evaluate(self.model, task, task.held_out("test", N_PROBLEMS), decoder, self.x)
            return N_PROBLEMS * self.x * self.length
        rl_step(self.model, task, self.n_rollouts, self.length)
        return 2 * N_PROBLEMS * self.n_rollouts * self.length


def rl_step(model, task, n_rollouts, length):
    """A step of grpo.grpo, less the optimizer's: rollouts, rewards, loss, gradients."""
    problems = [problem for problem in task.problems("train", 9_000_000, N_PROBLEMS)
                for _ in range(n_rollouts)]
    prompt = task.prompts([p["question"] for p in problems]).to(model.base.cos.device)
    generator = torch.Generator().manual_seed(0)
    rollout = generate(
        model, prompt, length, Decoder("left_to_right", temperature=1.0),
        lambda: torch.rand(len(prompt), 38, generator=generator)[:, :length])
    reward = judge(task, rollout, problems).view(N_PROBLEMS, n_rollouts)
    advantage = advantages(reward).flatten().to(prompt.device)
    for loss in policy_losses(model, prompt, rollout.tokens, rollout.rank, advantage):
        loss.backward()


def points(base, sweeps):
    for n in sweeps["rollouts a prompt"]:
        yield Point("rollouts a prompt", n, Sized(base), n_rollouts=n)
    for length in sweeps["completion length"]:
        yield Point("completion length", length, Sized(base), length=length)
    for n in sweeps["layers"]:
        yield Point("layers", n, Sized(base, n_layer=n))
    for width in sweeps["width"]:
        yield Point("width", width, Sized(base, n_embd=width))
    for order in ORDERS:
        for n in sweeps["pass@n"]:
            if order != "random" or n <= 64:        # nothing is shared: minutes
                yield Point(f"pass@n, {order}", n, Sized(base))


def measure(point, task, n_runs, device):
    """-> a row of the CSV."""
    times = []
    for _ in range(n_runs):
        point.model.n_states, point.model.answering = 0, 0.0
        start = time.perf_counter()
        published = point.run(task)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start - point.model.answering)
    seconds = round(statistics.median(times), 4)
    return {"what": point.what, "x": point.x, "seconds": seconds,
            "states": point.model.n_states, "published_states": published}


def draw(rows, path):
    """A panel for each kind of point: seconds on the left axis, states on the right."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    for axis, kind in zip(figure.subplots(2, 4).flat, kinds):
        numbers = [[float(row[column]) for column in COLUMNS[1:]]
                   for row in rows if row["what"] == kind]
        x, seconds, states, published = zip(*numbers)
        counted = axis.twinx()
        axis.plot(x, seconds, "o-")
        small_and_gray = {"color": "gray", "markersize": 3}
        counted.plot(x, states, "s--", label="states", **small_and_gray)
        counted.plot(x, published, "^:", label="published states", **small_and_gray)
        # Both scales span as many decades, so that slopes can be compared.
        scales = [(axis, seconds), (counted, states + published)]
        span = 1.5 * max(max(values) / min(values) for _, values in scales)
        for scale, values in scales:
            middle = (min(values) * max(values)) ** 0.5
            scale.set(yscale="log", ylim=(middle / span**0.5, middle * span**0.5))
            scale.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xscale("log", base=2)
        axis.set(xlabel=kind, ylabel="seconds (blue)")
    counted.legend(fontsize=7)
    lab.save(figure, path)


def main(argv=None):
    parser = argparse.ArgumentParser(description="How the time grows with all sizes.")
    add = parser.add_argument
    add("--quick", action="store_true", help="two points a curve, one run each")
    add("--out", default="out", help="folder with train.py's base.pt")
    add("--device", default="cpu", help="cpu or cuda")
    add("--csv", help="rows; default: scaling.csv, with --quick scaling-quick.csv")
    add("--figure", help="draw the rows to this file (needs matplotlib)")
    args = parser.parse_args(argv)
    path, sweeps, n_runs = args.csv or "scaling.csv", SWEEPS, 3
    if args.quick:      # not to be mistaken for finished points
        path, sweeps, n_runs = args.csv or "scaling-quick.csv", QUICK, 1
    try:
        base, _, _ = load_checkpoint(f"{args.out}/base.pt", args.device)
        rows = read_csv(path) if Path(path).exists() else []
        write_csv(path, COLUMNS, rows)      # fails now, if it must
    except (OSError, ValueError) as error:
        parser.error(str(error))
    there = {(row["what"], row["x"]) for row in rows}
    missing = [p for p in points(base, sweeps) if (p.what, str(p.x)) not in there]
    for point in tqdm(missing):
        row = measure(point, Toy(), n_runs, args.device)
        rows.append({column: str(value) for column, value in row.items()})
        write_csv(path, COLUMNS, rows)
    if args.figure:
        draw(rows, args.figure)


if __name__ == "__main__":
    main()
