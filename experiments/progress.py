"""Draws FOLDER/progress.png from the rows of a run of train.py, which calls this at its end.

    python experiments/progress.py out
"""
import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from eval_gsm8k import read_csv  # noqa: E402

STYLES = "-o", "--s", "-.^", ":d", ":x"     # to be told apart in black and white


def draw(folder, arm="justgrpo"):
    """Left: pass@k of the base, by order. Right: greedy accuracy during RL, validation problems."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [r for r in read_csv(f"{folder}/results.csv")
            if r["stage"] == "base" and float(r["temperature"]) > 0]
    curves = list(dict.fromkeys((r["order"], r["block_length"]) for r in rows))
    for curve, style in zip(curves, STYLES):
        points = [[float(r[c]) for c in ("k", "value", "low", "high")] for r in rows
                  if (r["order"], r["block_length"]) == curve]
        k, value, low, high = zip(*points)
        name = curve[0] + (f", blocks of {curve[1]}" if curve[1] else "")
        left.semilogx(k, value, style, label=name, base=2)
        left.fill_between(k, low, high, alpha=0.15)
    rows = [r for r in read_csv(f"{folder}/log.csv")        # stage validation: of older runs
            if r["threshold"] and r["stage"] in (arm, "validation")]
    for name, style in zip(("left_to_right", "confidence", "threshold"), STYLES):
        x, y = ([float(r[c]) for r in rows] for c in ("step", name))
        right.plot(x, y, style, label=name)
    left.set(xlabel="k", ylabel="pass@k at T=0.6", title="The base, by order (95 % intervals)")
    right.set(xlabel="RL step", ylabel="greedy accuracy", title=f"Trained by {arm}")
    for axis in (left, right):
        if axis.lines:
            axis.legend()
    figure.savefig(f"{folder}/progress.png", dpi=120)


if __name__ == "__main__":
    draw(sys.argv[1])
