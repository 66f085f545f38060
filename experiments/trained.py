"""The models that RL experiments 4, 5 and 8 compare: the base, more pretraining, and every arm at
the learning rate that curves.py chose."""
import functools
from pathlib import Path

from eval_gsm8k import read_csv
from experiments import bases, curves, rl
from experiments.curves import BASE, LONGER
from experiments.rows import ASSETS, report

MODELS = [BASE, LONGER, *curves.CONTENDERS]
ONE_BLOCK = [m for m in MODELS if m not in curves.IN_BLOCKS]

def cells(seeds, **more):
    """One a model and seed, and of each name = values in more, in all combinations."""
    found = [dict(seed=seed, model=name) for seed in seeds for name in MODELS]
    for key, values in more.items():
        found = [cell | {key: value} for cell in found for value in values]
    return found

@functools.cache
def rate(name):     # the best of all seeds, from the committed rows
    rows = read_csv(Path(ASSETS.parent, "rl", "curves.csv"))
    return curves.best(rows, name, bases.SEEDS)

def load(args, name, seed):     # -> model, task
    return loaded(args.bases, args.runs, args.quick, name, seed)

@functools.lru_cache(1)
def loaded(folder, runs, quick, name, seed):
    if name in (BASE, LONGER):
        variant = "longer" if name == LONGER and not quick else "default"
        return bases.load(folder, variant, seed, quick)[:2]
    run = curves.contender(name, seed, "" if quick else rate(name))
    return rl.trained(folder, runs, run, quick)

def run(name, description, columns, how, tables, draw, **more):
    """An experiment on these models: measure what is missing, how(args, cell) -> columns, print its
    tables, draw its figure."""
    args = rl.parse_flags(name, description)
    rows = rl.gather(args, columns, cells(args.seeds, **more), lambda cell: how(args, cell))
    report(args, rows, tables, draw)
