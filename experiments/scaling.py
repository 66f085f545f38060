"""How the time grows: of an RL step with rollouts, canvas, layers and width; of pass@n with n,
in four orders, 16 problems.

    python train.py                                     makes out/base.pt
    python experiments/scaling.py --csv assets/scaling.csv --figure assets/scaling.png

About ten minutes on two cores; --quick takes one. Each point is the median of three runs. Beside
the seconds stand the canvases that were evaluated (distinct states) and those that the published
loops evaluate: rows times length, once for the rollouts and once for the loss. Texts are always
those of the base, so that a network of another size meets the same states: it is run for its time,
and the base gives the answers. A longer canvas holds much the same texts, and more end-of-text.

Finished points are in the CSV at once, and are not measured again by the next run."""
import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tqdm import tqdm
from data import Toy
from eval_gsm8k import evaluate, read_csv, write_csv
from grpo import advantages, grpo_loss
from model import MaskedDiffusionLM, load_checkpoint
from sample import Decoder, generate

COLUMNS = ["what", "x", "seconds", "states", "published_states"]

class Sized(torch.nn.Module):
    """A fresh network of another size does the work; the base answers. Counts the canvases."""
    def __init__(self, base, **size):
        super().__init__()
        torch.manual_seed(0)
        same = all(getattr(base.config, name) == value for name, value in size.items())
        if "n_embd" in size:
            size["n_hidden"] = 3 * size["n_embd"]
        self.base, self.config = base, replace(base.config, **size)
        self.n_states, self.answering = 0, 0.0
        self.worker = None if same else MaskedDiffusionLM(self.config).to(base.cos.device)

    def forward(self, tokens, wanted=None):
        self.n_states += len(tokens)
        if self.worker is None:
            return self.base(tokens, wanted)
        work = self.worker(tokens, wanted)
        if torch.is_grad_enabled():     # the loss: its value does not matter, its time does
            return work
        start = time.perf_counter()
        answer = self.base(tokens, wanted)
        self.answering += time.perf_counter() - start       # is taken off
        return answer

def rl_step(model, task, n_rollouts, length):
    """One step of train.grpo: rollouts, rewards, loss with gradients. 16 prompts."""
    problems = [p for p in task.problems("train", 9_000_000, 16) for _ in range(n_rollouts)]
    prompt = task.prompts([p["question"] for p in problems]).to(model.base.cos.device)
    generator = torch.Generator().manual_seed(0)
    sample = generate(model, prompt, length, Decoder("left_to_right", temperature=1.0),
                      lambda: torch.rand(len(prompt), 38, generator=generator)[:, :length])
    reward = torch.tensor([task.reward(task.text(t), p["answer"]) for t, p in
                           zip(sample.tokens.cpu(), problems)]).view(16, n_rollouts)
    advantage = advantages(reward).flatten().to(prompt.device)
    for piece in grpo_loss(model, prompt, sample.tokens, sample.rank, advantage):
        piece.backward()
    return 2 * len(prompt) * length

def points(base, quick):    # -> name, x, function() -> published states, model that counts
    task = Toy()
    L = task.completion_length
    def step(model, n_rollouts=8, length=L):
        return lambda: rl_step(model, task, n_rollouts, length), model
    for n in (4, 8) if quick else (2, 4, 8, 16, 32, 64):
        yield "rollouts a prompt", n, *step(Sized(base), n_rollouts=n)
    for length in (L, 30) if quick else (L, 26, 30, 34, 38):
        yield "completion length", length, *step(Sized(base), length=length)
    for n in (3, 6) if quick else (1, 2, 3, 6, 12):
        yield "layers", n, *step(Sized(base, n_layer=n))
    for width in (64, 128) if quick else (64, 128, 256, 512):
        yield "width", width, *step(Sized(base, n_embd=width))
    problems = task.held_out("test", 16)
    for order in ("left_to_right", "confidence", "top_probability", "random"):
        decoder = Decoder(order, temperature=0.6)
        for n in (1, 16) if quick else (1, 4, 16, 64, 256, 1024):
            if order == "random" and n > 64:
                continue        # nothing is shared: minutes
            model = Sized(base)
            def passes(model=model, n=n, decoder=decoder):
                evaluate(model, task, problems, decoder, n)
                return len(problems) * n * L
            yield f"pass@n, {order}", n, passes, model

def draw(rows, path):
    from matplotlib import pyplot, ticker
    names = list(dict.fromkeys(row["what"] for row in rows))
    figure, axes = pyplot.subplots(-(-len(names) // 4), 4, figsize=(13, 5.5), squeeze=False)
    for axis, name in zip(axes.flat, names):
        mine = [row for row in rows if row["what"] == name]
        x = [float(row["x"]) for row in mine]
        axis.plot(x, [float(row["seconds"]) for row in mine], "o-", label="seconds")
        other = axis.twinx()
        for column, style in ("states", "s--"), ("published_states", "^:"):
            other.plot(x, [float(row[column]) for row in mine], style, color="gray",
                       label=column.replace("_", " "), markersize=3)
        # Both axes span as many decades, so that slopes can be compared.
        lines = [axis.lines, other.lines]
        limits = [[f(f(line.get_ydata()) for line in one) for f in (min, max)] for one in lines]
        span = 1.5 * max(high / low for low, high in limits)
        for one, (low, high) in zip((axis, other), limits):
            middle = (low * high) ** 0.5
            one.set_yscale("log")
            one.set_ylim(middle / span ** 0.5, middle * span ** 0.5)
            one.yaxis.set_minor_formatter(ticker.NullFormatter())
        axis.set_xscale("log", base=2)
        axis.set_xlabel(name)
        if axis is axes[0, 0]:
            axis.set_ylabel("seconds (blue)")
            other.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)

def main(argv=None):
    parser = argparse.ArgumentParser(description="How the time grows with the size of everything.")
    parser.add_argument("--quick", action="store_true", help="two points a curve, one run each")
    parser.add_argument("--out", default="out", help="folder with train.py's base.pt")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--csv", default="scaling.csv", help="rows, one a point")
    parser.add_argument("--figure", help="draw the rows to this file (needs matplotlib)")
    args = parser.parse_args(argv)
    if args.quick and args.csv == parser.get_default("csv"):
        args.csv = "scaling-quick.csv"      # not to be mistaken for finished points
    try:
        base = load_checkpoint(f"{args.out}/base.pt", args.device)[0]
        rows = read_csv(args.csv) if Path(args.csv).exists() else []
        write_csv(args.csv, COLUMNS, rows)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    done = {(row["what"], row["x"]) for row in rows}
    todo = [p for p in points(base, args.quick) if (p[0], str(p[1])) not in done]
    for what, x, work, model in tqdm(todo):
        times = []
        for _ in range(1 if args.quick else 3):
            model.n_states, model.answering, start = 0, 0.0, time.perf_counter()
            published = work()
            if args.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start - model.answering)
        rows.append(dict(zip(COLUMNS, [what, x, round(statistics.median(times), 4),
                                       model.n_states, published])))
        write_csv(args.csv, COLUMNS, rows)
    if args.figure:
        draw(rows, args.figure)

if __name__ == "__main__":
    main()
