"""Is the end of the empty canvas taken for end-of-text? Why threshold decoding can break under RL.

    python experiments/tail.py tail.csv out/base.pt out/justgrpo.pt      seconds

A solution that writes every step has its "####" at position 19 of 22. Of each checkpoint, on 200
test problems: `p_end`, the probability of end-of-text there when all is masked (mean); `share`,
of problems in which it is .9 or more, so that threshold decoding commits it before anything else;
`accuracy` of that decoder; `wrong_by_end`, of its wrong texts, the share in which it did.
"""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data import load_task  # noqa: E402
from eval_gsm8k import write_csv  # noqa: E402
from model import load_checkpoint  # noqa: E402
from sample import Decoder, generate  # noqa: E402

COLUMNS = ["stage", "seed", "direct", "skip", "p_end", "share", "accuracy", "wrong_by_end"]


def tail(path, n_problems=200):
    """-> one row of the CSV."""
    model, description, info = load_checkpoint(path)
    task = load_task(description)
    problems, L = task.problems("test", 0, n_problems), task.completion_length
    prompt, at = task.prompts([p["question"] for p in problems]), task.fork_position(task.n_steps)
    with torch.no_grad():
        empty = torch.full((n_problems, L), task.mask_id)
        p = model(torch.cat([prompt, empty], dim=1))[:, -L:].softmax(-1)[:, at, task.eos_id]
    sample = generate(model, prompt, L, Decoder("top_probability", "threshold", 0.9))
    right = torch.tensor([task.reward(task.text(tokens), problem["answer"])
                          for tokens, problem in zip(sample.tokens, problems)])
    first = (sample.rank[:, at] == 0) & (sample.tokens[:, at] == task.eos_id)
    values = p.mean(), (p >= 0.9).float().mean(), right.mean(), first[right == 0].float().mean()
    return dict(zip(COLUMNS, [info["stage"], info["seed"], task.direct, task.skip,
                              *(round(v.item(), 4) for v in values)]))


if __name__ == "__main__":
    rows = []
    for path in sys.argv[2:]:
        rows.append(tail(path))
        print(rows[-1])
        write_csv(sys.argv[1], COLUMNS, rows)
