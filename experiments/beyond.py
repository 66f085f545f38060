"""RL experiment 8: beyond the task. Did RL teach reasoning, or move one fork's probability?

    python experiments/beyond.py --figure assets/rl/beyond.png

From the committed rows: seconds. Without them: an hour on one core, and the runs of curves.py.

Stories with other numbers of operations than the six of all training, and stories of six with rare
ones: 4 to 6 given or got, three times, swaps. (Numbers above 12 and operands above 6 are no words
of the vocabulary.) `every step`: the share of texts that write as many steps as the story has."""
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data
import numpy as np
from data import Toy
from eval_gsm8k import evaluate
from experiments import trained
from experiments.curves import style
from experiments.frontier import correct
from experiments.rl import bits, each
from experiments.rows import STYLES, panels, save
from experiments.tables import pick
from sample import Decoder

HARD = {"gets": ("+", range(4, 7)), "gives": ("-", range(4, 7)), "times": ("*", range(3, 4)),
        "swaps": ("~", ["all"])}

class Rare(Toy):
    def problem(self, split, index):
        with patch.object(data, "VERBS", HARD):
            return super().problem(split, index)

SETS = {**{f"{n} operations": Toy(n_steps=n) for n in (6, 7, 8)}, "rare operands": Rare()}
DECODERS = {"left to right": Decoder(), "LCR": Decoder("confidence"),
            "threshold .9": Decoder("top_probability", "threshold")}
COLUMNS = ["seed", "model", "set", "decoder", "nfe", "every_step", "right_steps", "correct"]

def steps_right(text, steps):       # how many, before the first that is not as it should be
    return max(n for n in range(len(steps)) if n == 0 or text.startswith("".join(steps[:n + 1])))

def how(args, cell):
    model, _ = trained.load(args, cell["model"], cell["seed"])
    task = SETS[cell["set"]]
    problems = task.held_out("test", 16 if args.quick else 400)
    result = evaluate(model, task, problems, DECODERS[cell["decoder"]])
    texts = [text for [text] in result["texts"]]
    return {"nfe": round(result["nfe"], 3), "correct": bits(result["correct"][:, 0]),
            "every_step": np.mean([text.count("->") == task.n_steps for text in texts]),
            "right_steps": np.mean([steps_right(t, p["steps"])
                                    for t, p in zip(texts, problems)])}

def table(rows, seeds):
    out = []
    for name in SETS:
        for model in trained.MODELS:
            mine = [[pick(rows, seed=s, model=model, set=name, decoder=d) for s in seeds]
                    for d in DECODERS]
            out.append([name, model, *(each(correct(r).mean() for r in one) for one in mine),
                        *(each((r[c] for r in mine[0]), "{:.2f}")
                          for c in ("every_step", "right_steps"))])
    return ["stories", "model", *DECODERS, "every step (left to right)", "right steps"], out

TABLES = [table]

def draw(rows, seeds, path):
    """Means of the seeds. Rollouts in one block."""
    figure, axes = panels(len(DECODERS), width=4, height=3.4, y="accuracy, mean of seeds")
    for axis, decoder in zip(axes, DECODERS):
        for model in trained.ONE_BLOCK:
            y = [np.mean([correct(pick(rows, seed=s, model=model, set=name,
                                       decoder=decoder)).mean() for s in seeds]) for name in SETS]
            axis.plot(range(len(y)), y, label=model, linewidth=1.1, markersize=4,
                      **STYLES[style(model)])
        axis.set_xticks(range(len(SETS)), [n.replace(" ", "\n") for n in SETS], fontsize=6)
        axis.set_title(f"greedy, {decoder}", fontsize=9)
    axes[0].legend(fontsize=6)
    save(figure, path)

if __name__ == "__main__":
    trained.run("beyond", "Stories that training does not have.", COLUMNS, how, TABLES, draw,
                set=SETS, decoder=DECODERS)
