"""RL experiment 5: pass@k after RL. Does it raise pass@1 by spending pass@k?

    python experiments/after.py --figure assets/rl/after.png

From the committed rows: seconds. Without them: three hours on one core, and curves.py's runs.
T=0.6, 200 test problems x 256 samples, as in pass_at_k.py."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eval_gsm8k import bootstrap, evaluate
from experiments import trained
from experiments.curves import style
from experiments.rows import (BLOCKS, LCR, LTR, TABLE_KS, curve, ks_of, lead, numbers, panels,
                              plain, save, short, signed, solved)
from experiments.tables import pick

DECODERS = {str(d): d for d in (LTR, LCR, BLOCKS)}
COLUMNS = ["seed", "model", "decoder", "n_problems", "n_samples", "nfe", "n_forward", "seconds",
           "distinct", "entropy_fork", "correct", "derived"]

def how(args, cell):
    model, task = trained.load(args, cell["model"], cell["seed"])
    n_problems, n_samples = (16, 16) if args.quick else (200, 256)
    problems = task.held_out("test", n_problems)
    result = evaluate(model, task, problems, DECODERS[cell["decoder"]], n_samples)
    row = {"n_problems": n_problems, "n_samples": n_samples, **numbers(task, problems, result)}
    return {k: v for k, v in row.items() if k in COLUMNS}

def table(rows, seeds):
    """pass@k, and its change from the base."""
    out, ks = [], ks_of(rows, TABLE_KS)
    for model in trained.MODELS:
        for seed in seeds:
            for decoder in DECODERS:
                row, base = (pick(rows, seed=seed, model=m, decoder=decoder)
                             for m in (model, trained.BASE))
                out.append([model, seed, short(decoder),
                            *(plain(*bootstrap(solved(row, k))) for k in ks),
                            *("" if row is base else signed(*lead(row, base, k, column))
                              for column in ("correct", "derived") for k in ks),
                            row["distinct"].split()[0]])
    return ["model", "seed", "order", *(f"pass@{k}" for k in ks), *(f"change, k={k}" for k in ks),
            *(f"in derivations, k={k}" for k in ks), "distinct"], out

TABLES = [table]

def draw(rows, seeds, path):
    """Rollouts in one block."""
    figure, axes = panels(len(seeds), n_rows=2, x="k", y="pass@k")
    for line, decoder in zip(axes, DECODERS):
        for axis, seed in zip(line, seeds):
            for model in trained.ONE_BLOCK:
                row = pick(rows, seed=seed, model=model, decoder=decoder)
                curve(axis, row, model, style(model))
            axis.set_title(f"{short(decoder)}, T = 0.6, seed {seed}", fontsize=9)
    axes[0][0].legend(fontsize=6)
    save(figure, path)

if __name__ == "__main__":
    trained.run("after", "pass@k after RL.", COLUMNS, how, TABLES, draw, decoder=DECODERS)
