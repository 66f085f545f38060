"""Measures: accuracy and pass@k with intervals, evaluations spent, forks bypassed.

    python eval_gsm8k.py                                    accuracy on the toy's test split
    python eval_gsm8k.py --samples 32 --temperature 0.6 --k 1,2,4,8,16,32           pass@k
    python eval_gsm8k.py --checkpoint gsm8k/justgrpo.pt --data test.jsonl   the real GSM8K
    python eval_gsm8k.py --texts texts.jsonl                            and keep every text
    python eval_gsm8k.py --llada FOLDER --data test.jsonl    a published LLaDA: docs/llada.md

Every interval is a 95 % bootstrap over problems: how far other problems would move a
number. Where all agree it knows nothing: `proportion` has another bound then, all else
has none. It does not say what another seed would do.

Legend: Q problems, n samples of each, B = Q * n rows, L completion.
"""
import functools
import hashlib
import itertools
import json
import os
import re
import time
import urllib.request
import zlib
from argparse import ArgumentTypeError
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from statistics import mode
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data import is_right, official_match, short
from model import diffusion_loss, draw_masks
from runs import (ends_quietly, lock, may_write, plain, unlock, write_csv,
                  write_whole)
from sample import (add_decoder_flags, generate, load_from_flags, new_parser,
                    parse_decoder_flags, positive, temper, text_length)

# Of rows: what is measured on which stage of training, by which decoder.
KEY = ["stage", "order", "selection", "block_length", "temperature"]
RESULT_COLUMNS = KEY + ["k", "value", "low", "high", "nfe", "n_problems", "n_samples",
                        "seed"]
MEASURE_COLUMNS = KEY + ["measure", "value", "low", "high", "seed"]
BUDGET = 2**23      # probabilities a step: this bounds the memory of an evaluation

# ----------------------------------------------------------------------------------------
# statistics


class Interval(NamedTuple):
    """A number and its 95 % interval."""
    value: float
    low: float
    high: float

    def rounded(self):
        """As the columns of a row; bounds that are not known are left empty."""
        row = {name: round(float(x), 5) for name, x in self._asdict().items()}
        return row if row["low"] == row["low"] else {**row, "low": "", "high": ""}

    @classmethod
    def of(cls, row):
        """The way back, from a row of numbers or texts."""
        cells = [row["value"], row["low"], row["high"]]
        value, low, high = [float("nan") if cell == "" else float(cell) for cell in cells]
        return cls(value, low, high)

    def bounds(self, form=".3f", to=" to "):
        """For a table: "0.991 to 1.000", or "-"."""
        if self.low != self.low:        # nan
            return "-"
        return f"{self.low:{form}}{to}{self.high:{form}}"


def pass_at_k(correct, k):
    """Unbiased pass@k of each problem: correct (Q, n) of 0/1 -> (Q,).

    1 - C(n-c, k) / C(n, k), if c of a problem's n samples are right (Chen et al. 2021,
    arXiv 2107.03374, section 2.1); as a product, which can't overflow. Raises ValueError
    unless 1 <= k <= n, and for what is neither 0 nor 1.
    """
    correct = np.asarray(correct, dtype=float)
    if correct.ndim != 2 or not np.isin(correct, (0, 1)).all():
        raise ValueError("pass@k counts what is right, 1, and what is wrong, 0: a reward "
                         "is neither")
    n = correct.shape[1]
    if k not in range(1, n + 1):
        raise ValueError(f"pass@{k} of {n} samples a problem: k goes from 1 to --samples")
    chances = []
    for c in correct.sum(1).astype(int):
        if n - c < k:
            chances.append(1.0)     # any k of them hold a right one
        else:
            chances.append(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))
    return np.array(chances)


def bootstrap(numerator, denominator=None, n_resamples=2000):
    """The mean of numerator (Q,) over problems, or sum(numerator) / sum(denominator).

    Returns an Interval. Where all problems agree in five digits (a row has no more), as a
    single one does, resampling them says nothing: then its bounds are nan. A ratio of
    nothing (no fork in any text) is nan.
    """
    x = np.asarray(numerator, dtype=float)
    y = np.ones_like(x) if denominator is None else np.asarray(denominator, dtype=float)
    pick = resamples(len(x), n_resamples)
    with np.errstate(invalid="ignore"):     # 0/0
        value, ratio = x.sum() / y.sum(), x[pick].sum(1) / y[pick].sum(1)
    ratio = ratio[np.isfinite(ratio)]
    low, high = np.percentile(ratio, [2.5, 97.5]) if len(ratio) else (np.nan, np.nan)
    if round(low, 5) == round(high, 5):
        return Interval(value, np.nan, np.nan)
    return Interval(value, low, high)


@functools.lru_cache(1)     # one run asks for the same ones hundreds of times
def resamples(n_problems, n_resamples):
    """Which problems each resample has, (n_resamples, Q): the same for the same number of
    problems, whatever was drawn before."""
    return np.random.default_rng(0).integers(n_problems, size=(n_resamples, n_problems))


def proportion(passed):
    """The mean over problems of pass@k, or of another share (Q,), with its Interval.

    If all Q are right, or all wrong, the bound is that of a binomial: the share at which
    this would happen once in 40 times (Clopper and Pearson 1934).
    """
    found = bootstrap(passed)
    if np.isnan(found.low):
        share = 0.025 ** (1 / len(passed))
        if round(found.value, 5) == 1:
            return Interval(found.value, share, 1.0)
        if round(found.value, 5) == 0:
            return Interval(found.value, 0.0, 1 - share)
    return found


def leads(ahead, behind, ks):
    """By how much one decoder's pass@k is above another's, paired by problem.

    ahead, behind: what is right, or derived, of the same problems, (Q, n) each. Returns
    {k: Interval}.
    """
    return {k: bootstrap(pass_at_k(ahead, k) - pass_at_k(behind, k)) for k in ks}


def closed_form(q, derived, ks):
    """What derived@k must be, if all that differs from problem to problem is how likely
    its text is to be written out.

    q (Q,): the probability that the first line is written; derived (Q, n), of left to
    right. Whoever writes it gets through with one chance r, the same for all:
    derived@k = mean of 1 - (1 - q r)^k, and derived@1 says what r is. Returns {k: value}.
    """
    r = derived.mean() / max(np.mean(q), 1e-9)
    chance = np.minimum(q * r, 1)       # r may come out a little above 1
    return {k: float(np.mean(1 - (1 - chance) ** k)) for k in ks}


def overtakes(lead_at):
    """The first k of {k: Interval} whose lead, as printed, is above +0.000, or None."""
    return next((k for k, lead in lead_at.items() if lead.value >= 0.0005), None)


def crossing(lead_at):
    """One line about {k: Interval}, how far left to right is ahead at each k."""
    first, last = min(lead_at), max(lead_at)
    over = overtakes(lead_at)
    if over is None:
        text = "never ahead"
    elif over == first:
        text = "ahead from the start"
    else:
        text = f"overtakes at k={over}"
    parts = []
    for k in sorted({first, over or first, last}):
        lead = Interval.of(lead_at[k].rounded())
        parts.append(f"{lead.value:+.3f} [{lead.bounds('+.2f', ', ')}] at k={k}")
    return f"{text}; {'; '.join(parts)}"

# ----------------------------------------------------------------------------------------
# measures


def measure(task, sample):
    """All that is no accuracy: name -> numerator (B,), denominator (B,).

    The same for every task: tokens_per_evaluation (of text, end-of-text included, over
    NFE); non_top_commits (tokens that were not the likeliest, of those committed).
    """
    committed = sample.rank < sample.rank.shape[1]                              # (B, L)
    lengths = text_length(sample.tokens, task.eos_id)
    found = {"tokens_per_evaluation": (lengths, sample.nfe),
             "non_top_commits": ((committed & ~sample.is_top).sum(1), committed.sum(1))}
    if task.n_lines:
        found.update(measure_forks(task, sample, lengths))
    # Numerator and denominator stay apart: a ratio of sums is no mean of ratios.
    return {name: tuple(side.cpu().double() for side in sides)
            for name, sides in found.items()}


def measure_forks(task, sample, lengths):
    """What needs known forks; fork: at them, other: at the other positions of the text.

    bypass: the share of positions with something to their right, in the lines (what
    stands in every text alike does not count), that was committed earlier. entropy: nats
    at the commit; at forks also of those that write the next line, and that do not.
    early_end: texts whose end-of-text was committed before something on its left.
    malformed: texts without a solution's form.
    """
    tokens, rank = sample.tokens, sample.rank
    L = rank.shape[1]
    inside = torch.arange(L, device=rank.device) < lengths[:, None]             # (B, L)
    is_text = inside & (tokens != task.eos_id)
    in_lines = is_text.clone()
    in_lines[:, task.sheet_length or L:] = False
    forks = task.forks(tokens) & inside
    # The earliest commit from here on. (Blocks need no word: each is full before the
    # next is begun.)
    earliest = rank.masked_fill(~in_lines, L).flip(1).cummin(1).values.flip(1)  # (B, L)
    found = {}
    for name, where in (("fork", forks), ("other", ~forks & inside)):
        found[f"bypass_{name}"] = ((earliest < rank) & where).sum(1), where.sum(1)
        found[f"entropy_{name}"] = (sample.entropy * where).sum(1), where.sum(1)
    ends = tokens == task.end_id
    for name, where in (("write", forks & ~ends), ("blank", forks & ends)):
        found[f"entropy_fork_{name}"] = (sample.entropy * where).sum(1), where.sum(1)
    end = rank.gather(1, lengths[:, None] - 1)[:, 0]                            # (B,)
    latest = rank.masked_fill(~is_text, -1).amax(1)                             # (B,)
    is_early = (end < latest) & (tokens == task.eos_id).any(1)
    one = torch.ones(len(rank))
    is_well_formed = functools.cache(lambda row: task.is_well_formed(task.text(row)))
    malformed = torch.tensor([not is_well_formed(tuple(row)) for row in tokens.tolist()])
    return {**found, "early_end": (is_early, one), "malformed": (malformed, one)}


@dataclass
class Evaluation:
    """What a decoder made of Q problems, n samples each."""
    correct: np.ndarray     # (Q, n), 1 where a text is right, else 0
    derived: np.ndarray     # (Q, n), 1 where it is the worked solution; None: unknown
    texts: list             # Q lists of n
    nfe_of: np.ndarray      # (Q, n) forward evaluations of each
    n_forward: int          # evaluations that were run: rows share equal canvases
    seconds: float
    measures: dict          # name -> numerator (Q,), denominator (Q,)

    @property
    def nfe(self):
        """Forward evaluations a row, mean."""
        return float(self.nfe_of.mean())


def evaluate(model, task, problems, decoder, n_samples=1, seed=0, budget=BUDGET, name=None,
             decode=generate, loop=None):
    """Sample n completions of each problem -> Evaluation; None if loop was stopped.

    budget: probabilities a step. name: of a progress bar.
    loop(n, generator, done) yields the numbers of the batches, as Run.loop does, which
    can stop and go on; done, a dict, is all that there is of the batches before.
    (Texts.loop is another.)
    """
    device, L = next(model.parameters()).device, task.completion_length
    generator = torch.Generator().manual_seed(seed)
    start = time.time()
    done = {"texts": [], "nfe": [], "measures": [], "n_forward": 0}
    batches = batches_of(task, problems, batch_size(task, n_samples, budget))
    if loop is None:
        numbers = tqdm(range(len(batches)), name, leave=False, disable=name is None)
    else:
        numbers = loop(len(batches), generator, done)
    text = functools.cache(task.text)       # samples of one problem repeat
    for i in numbers:
        prompts = task.prompts([p["question"] for p in batches[i]])
        prompts = prompts.to(device).repeat_interleave(n_samples, dim=0)    # (b * n, P)
        sample = decode(model, prompts, L, decoder,
                        draws(task, batches[i], n_samples, seed, generator))
        done["texts"] += [text(tuple(tokens)) for tokens in sample.tokens.tolist()]
        done["nfe"] += sample.nfe.tolist()
        done["measures"].append(measure(task, sample))
        done["n_forward"] += sample.n_forward
    if len(done["texts"]) < len(problems) * n_samples:
        return None     # stopped
    return judged(task, problems, n_samples, done, time.time() - start)


def batch_size(task, n_samples, budget=BUDGET):
    """How many problems are sampled at a time."""
    return max(1, budget // (n_samples * task.completion_length * task.n_vocab))


def batches_of(task, problems, size):
    """Lists of at most `size` problems, in order, whose prompts have one length: where
    they are not padded, others can't share a batch."""
    batches = []
    for _, same in itertools.groupby(problems, lambda p: task.length_of(p["question"])):
        same = list(same)
        batches += [same[i:i + size] for i in range(0, len(same), size)]
    return batches


def draws(task, problems, n_samples, seed, generator):
    """generate's uniform() for a batch of problems. Where prompts are not padded each
    problem has draws of its own, whatever else is in the batch, or in the file: so that
    shards make what the whole would."""
    shape = n_samples, task.completion_length
    if task.is_padded:
        return lambda: torch.rand(len(problems) * shape[0], shape[1], generator=generator)
    own = [torch.Generator().manual_seed(zlib.crc32(f"{seed} {p['question']}".encode()))
           for p in problems]
    return lambda: torch.cat([torch.rand(shape, generator=g) for g in own])


def judged(task, problems, n_samples, done, seconds):
    """What evaluate has collected, problem by problem -> Evaluation."""
    texts = done["texts"]
    texts = [texts[i:i + n_samples] for i in range(0, len(texts), n_samples)]
    correct = np.array([[is_right(task, text, problem) for text in row]
                        for row, problem in zip(texts, problems)], dtype=float)
    derived = None
    if task.n_lines:
        derived = np.array([[task.is_derived(text, problem) for text in row]
                            for row, problem in zip(texts, problems)], dtype=float)
    measures = {}
    for name in done["measures"][0]:
        batches = [batch[name] for batch in done["measures"]]
        measures[name] = tuple(
            torch.cat([batch[side] for batch in batches]).view(-1, n_samples).sum(1).numpy()
            for side in (0, 1))     # numerator, denominator
    if n_samples > 1:       # different texts of a problem's n
        measures["distinct"] = [len(set(row)) for row in texts], [1] * len(texts)
    nfe = np.array(done["nfe"]).reshape(correct.shape)
    return Evaluation(correct, derived, texts, nfe, done["n_forward"], seconds,
                      measures)

# ----------------------------------------------------------------------------------------
# texts on disk, one JSON line a sample


def text_line(task, problem, index, text, right, nfe):
    """Of a text: index (of the problem), prompt, text, extracted (the answer in it, by
    which a task of one's own need not judge), gold, right, nfe (evaluations)."""
    return {"index": index, "prompt": problem["question"], "text": text,
            "extracted": task.extracted(task.judged_text(text, problem)),
            "gold": str(problem["answer"]),
            "right": bool(right), "nfe": int(nfe)}


def json_line(row):
    return json.dumps(row, ensure_ascii=False) + "\n"


@dataclass
class Texts:
    """A file to which evaluate's texts are added, batch by batch, and from which a
    restart takes what is there. Each line has `run`, which names the same work."""
    path: str
    run: str
    task: object
    problems: list
    decoder: object
    n_samples: int
    first: int = 0          # the number of the first problem, if these are a part
    holder: int = None      # of its lock

    def open(self):
        """Take the file, for this process alone. Raises OSError, and ValueError for one
        of something else, which stays as it is."""
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise ValueError(f"{self.path} is no regular file: take another --texts")
        with open(self.path, "ab"):     # it can be written, and is there now
            self.holder = lock(self.path, flag="--texts")
        try:
            self.read()
        except ValueError:
            unlock(self.holder)
            raise

    def read(self):
        self.lines, self.ends = [], [0]     # what is there, and where each line ends
        data = Path(self.path).read_bytes()
        half = data[data.rfind(b"\n") + 1:]
        ours = json_line({"run": self.run}).encode()[:-2]
        if not (half.startswith(ours) or ours.startswith(half)):
            raise ValueError(f"{self.path} is no file of texts: take another --texts")
        for line in data[:len(data) - len(half)].splitlines(True):
            try:
                self.lines.append(self.checked(json.loads(line), len(self.lines)))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(
                    f"{self.path}, line {len(self.lines) + 1} is not of this evaluation "
                    f"({short(error)}): take another --texts") from None
            self.ends.append(self.ends[-1] + len(line))

    def checked(self, line, number):
        """A line that stands in its place, and has all that a restart needs."""
        index, sample = divmod(self.first * self.n_samples + number, self.n_samples)
        if line["run"] != self.run:
            raise ValueError("other flags, or another checkpoint")
        if (line["index"], line["sample"]) != (index, sample):
            raise ValueError("lines are missing or in another order")
        sides = [side for pair in line["measures"].values() for side in pair]
        if not (type(line["text"]) is str and type(line["nfe"]) is int and sides
                and 0 < line["nfe"] < 2**31 and all(type(side) is float for side in sides)
                and all(len(pair) == 2 for pair in line["measures"].values())
                and line["measures"].keys() == (self.lines or [line])[0]["measures"].keys()):
            raise ValueError("changed by hand")
        return line

    def loop(self, n_batches, generator, done):
        """evaluate's loop. Raises OSError."""
        batches = batches_of(self.task, self.problems, batch_size(self.task, self.n_samples))
        # Where each batch ends, in lines; those that are not all there are made anew.
        ends = np.cumsum([0] + [len(batch) * self.n_samples for batch in batches])
        n_done = int((ends[1:] <= len(self.lines)).sum())
        os.truncate(self.path, self.ends[ends[n_done]])
        for i in range(n_done):
            self.take(self.lines[ends[i]:ends[i + 1]], generator, done)
        for i in tqdm(range(n_done, n_batches), str(self.decoder), leave=False,
                      initial=n_done, total=n_batches):
            yield i
            self.add(done)

    def take(self, lines, generator, done):
        """Put a batch into done as if it had been sampled now."""
        done["texts"] += [line["text"] for line in lines]
        done["nfe"] += [line["nfe"] for line in lines]
        done["measures"].append({
            name: tuple(torch.tensor([line["measures"][name][side] for line in lines],
                                     dtype=torch.float64) for side in (0, 1))
            for name in lines[0]["measures"]})
        if not self.task.is_padded:
            return      # see draws
        # generate drew once a step, and once before in random order.
        n_draws = max(line["nfe"] for line in lines) + (self.decoder.order == "random")
        for _ in range(n_draws):
            torch.rand(len(lines), self.task.completion_length, generator=generator)

    def add(self, done):
        """Append the lines of the last batch."""
        measures = done["measures"][-1]
        sides = {name: torch.stack(sides, 1).tolist() for name, sides in measures.items()}
        n = len(next(iter(sides.values())))
        first = len(done["texts"]) - n
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            for row in range(n):
                index, sample = divmod(first + row, self.n_samples)
                problem, text = self.problems[index], done["texts"][first + row]
                right = is_right(self.task, text, problem)
                line = text_line(self.task, problem, self.first + index, text, right,
                                 done["nfe"][first + row])
                own = {name: values[row] for name, values in sides.items()}
                file.write(json_line({"run": self.run, **line, "sample": sample,
                                      "measures": own}))

# ----------------------------------------------------------------------------------------
# what a base knows


@dataclass
class Base:
    masked_nll: float       # nats a token, on validation problems
    common_answer: str      # of the training problems,
    majority_answer: float  # and how often it would be right, on test problems
    lines: dict             # name -> a number for each line (see probe_lines); {}: unknown

    def measures(self):
        """name -> number."""
        found = {"masked_nll": self.masked_nll, "majority_answer": self.majority_answer}
        for name, values in self.lines.items():
            found.update({f"{name}_{line}": value for line, value in enumerate(values)})
        return found

    def next_value(self):
        """The share of lines whose value is right, given a correct start (or 1)."""
        return float(np.mean(self.lines.get("next_value", 1.0)))


@torch.no_grad()
def probe(model, task, n_problems):
    """What the model knows without any decoding -> Base."""
    device = next(model.parameters()).device
    problems = task.held_out("validation", n_problems)
    prompt = task.prompts([p["question"] for p in problems]).to(device)         # (Q, P)
    completion = task.completions([p["solution"] for p in problems]).to(device)  # (Q, L)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(8):      # eight draws of the masks, always the same
        t, is_masked = draw_masks(*completion.shape, generator)
        losses.append(diffusion_loss(model, prompt, completion, t, is_masked).item())
    common = mode(p["answer"] for p in task.held_out("train", 5000))
    same = [p["answer"] == common for p in task.held_out("test", n_problems)]
    lines = probe_lines(model, task, problems, prompt) if task.n_lines else {}
    return Base(float(np.mean(losses)), common, float(np.mean(same)), lines)


@torch.no_grad()
def first_line(model, task, problems, temperature):
    """The probability that the first line is written, of each problem, (Q,): one look at
    the empty canvas."""
    prompt = task.prompts([p["question"] for p in problems]).to(model.cos.device)
    logits, _ = look(model, task, problems, prompt, 0, task.fork_position(0))   # (Q, V)
    p = temper(logits, temperature).softmax(-1)
    return (1 - p[:, task.end_id]).cpu().double().numpy()


def look(model, task, problems, prompt, n_written, position):
    """What the model says of a position, given the text before it, which writes so many
    lines: logits (Q, V); and what stands there, (Q,)."""
    text = task.completions([task.solution(p, n_written) for p in problems])
    text = text.to(prompt.device)                                               # (Q, L)
    hidden = torch.arange(text.shape[1], device=text.device) >= position
    canvas = torch.cat([prompt, text.masked_fill(hidden, task.mask_id)], dim=1)
    return model(canvas)[:, task.prompt_length + position], text[:, position]


def probe_lines(model, task, problems, prompt):
    """For each number of lines that are written before, a share of the problems, of all
    and of each kind: next_value, it is right, given a correct start; go_on, the
    probability that one more line is written, and true_go_on, the task's own;
    answer_in_head, the answer is right if it is given then."""
    def is_hit(n_written, position):
        logits, truth = look(model, task, problems, prompt, n_written, position)
        return (logits.softmax(-1).argmax(-1) == truth).float().cpu()           # (Q,)

    def goes_on(line):
        logits, _ = look(model, task, problems, prompt, n, fork(line))
        return 1 - logits.softmax(-1)[:, task.end_id].cpu()                     # (Q,)

    # A value stands right before the next fork.
    n, fork = task.n_lines, task.fork_position
    value = [is_hit(n, fork(line + 1) - 1) for line in range(n)]
    rates = [goes_on(line) for line in range(n)]
    head = [is_hit(line, task.answer_position(line)) for line in range(n + 1)]
    found = {"next_value": means(value), "answer_in_head": means(head)}
    for kind in task.kinds:
        mine = torch.tensor([task.kind(problem) == kind for problem in problems])
        found[f"next_value_{kind}"] = means(value, mine)
        found[f"go_on_{kind}"] = means(rates, mine)
        found[f"true_go_on_{kind}"] = task.true_go_on()[kind]
        found[f"answer_in_head_{kind}"] = means(head, mine)
    return found


def means(rows, mine=slice(None)):
    return [row[mine].mean().item() for row in rows]

# ----------------------------------------------------------------------------------------
# rows and tables


def columns_of(decoder):
    """What a row says of its decoder."""
    return {"order": decoder.order, "selection": decoder.selection,
            "block_length": decoder.block_length or "",
            "temperature": decoder.temperature}


def matching(rows, **wanted):
    """Those of some rows (dicts of texts) that have these values."""
    def fits(row):
        return all(row[name] == str(value) for name, value in wanted.items())

    return [row for row in rows if fits(row)]


def row_key(stage, decoder, seed):
    """The columns of a row that say what was measured."""
    return {"stage": stage, **columns_of(decoder), "seed": seed}


def result_rows(stage, decoder, evaluation, seed, ks=(1,)):
    """Rows of results.csv: pass@k with its interval."""
    n_problems, n_samples = evaluation.correct.shape
    key = row_key(stage, decoder, seed)
    return [{**key, "k": k, **proportion(pass_at_k(evaluation.correct, k)).rounded(),
             "n_samples": n_samples, "n_problems": n_problems, "nfe": round(evaluation.nfe, 4)}
            for k in ks]


def measure_rows(stage, decoder, evaluation, seed):
    """Rows of measures.csv."""
    key = row_key(stage, decoder, seed)
    return [{**key, "measure": name, **interval_of(name, *sides).rounded()}
            for name, sides in evaluation.measures.items()]


def interval_of(measure, part, whole):
    """A measure's Interval, of its two sides (Q,)."""
    if measure in ("early_end", "malformed"):       # of texts, n of each problem
        return proportion(np.divide(part, whole))
    return bootstrap(part, whole)


def number(value):
    """For a table: what is nan, as a rate of nothing is, is "-"."""
    return "-" if value != value else f"{value:.3f}"


def derived_rows(stage, decoder, task, problems, evaluation, seed, ks, kind=""):
    """Rows of measures.csv: derived@k, of all problems or of one kind."""
    key, name = row_key(stage, decoder, seed), f"derived_{kind}" if kind else "derived"
    mine = [not kind or task.kind(problem) == kind for problem in problems]
    if not any(mine):
        return []
    derived = evaluation.derived[mine]
    return [{**key, "measure": f"{name}_at_{k}",
             **proportion(pass_at_k(derived, k)).rounded()} for k in ks]


def pass_lines(decoder, rows):
    """Two lines of a table: a decoder's pass@k, of rows with rising k, and the intervals."""
    return [[decoder, *(f"{row['value']:.3f}" for row in rows)],
            ["   95 % interval", *(Interval.of(row).bounds(".2f", "-") for row in rows)]]


def print_table(header, rows):
    """The first column flush left; a row may stop early."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(header))]
    for first, *rest in rows:
        cells = [cell.rjust(w + 1) for cell, w in zip(rest, width[1:])]
        print(" ", first.ljust(width[0]), *cells)

# ----------------------------------------------------------------------------------------
# python eval_gsm8k.py

GSM8K_TEST = ("https://raw.githubusercontent.com/openai/grade-school-math/"
              "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/test.jsonl")
GSM8K_TEST_SHA256 = "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"


def download(path):
    """GSM8K's test file, if it is not there. Raises OSError or ValueError."""
    is_there = Path(path).is_file()
    try:
        if is_there:
            source = open(path, "rb")
        else:
            source = urllib.request.urlopen(GSM8K_TEST, timeout=30)
        with source:
            data = source.read(2_000_000)  # it has 749,738 bytes; some other may not end
    except (OSError, HTTPException) as error:
        raise OSError(
            f"no download ({error}): put {GSM8K_TEST} at {path}, or use --data") from None
    if hashlib.sha256(data).hexdigest() != GSM8K_TEST_SHA256:
        if is_there:
            raise ValueError(f"{path} is there, and is not GSM8K's test file (SHA-256): "
                             "leave out --download, or give it another --data")
        raise ValueError(f"{GSM8K_TEST} is not the file it was (SHA-256); nothing was saved")
    if not is_there:
        write_whole(path, data)


def parse_flags(argv):
    parser = new_parser("Accuracy or pass@k of a checkpoint, in any decoding order.")
    add = parser.add_argument
    add("--download", action="store_true", help="fetch GSM8K's test file, use it")
    add("--limit", type=positive(int), default=400, help="how many problems; with --llada "
        "1319, all of GSM8K's")
    add("--k", default="1", help="pass@k for these k, as in 1,2,4")
    add("--trap", action="store_true", help="not one decoder but four, and how far left to "
        "right is ahead: left_to_right, confidence, top_probability, threshold=0.9")
    add("--csv", help="write the rows to this file")
    add("--texts", help="write every text to this file, as JSON lines, after each batch; "
        "what is there of the same evaluation is not sampled again")
    add("--shard", type=shard, metavar="I/N", help="only the I-th of N parts of the problems, "
        "with --llada; cat the parts' --texts in order, and they are the whole's")
    add("--with-prompt", action="store_true", help="look for the answer in prompt and "
        "completion, with --llada: as JustGRPO's code did until July 2026")
    add_decoder_flags(parser)
    return parser, parse_decoder_flags(parser, argv, limit=1319)


def shard(text):
    """A flag's type: 2/8 -> (2, 8)."""
    found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ArgumentTypeError(f"{text} is none of 1/N, 2/N, ... N/N")
    return int(found[1]), int(found[2])


def parse_ks(text, n_samples):
    ks = [int(k) if re.fullmatch(" *[0-9]+ *", k) else 0 for k in text.split(",")]
    if not 1 <= min(ks) <= max(ks) <= n_samples:
        raise ValueError(f"--k {text}: whole numbers from 1 to --samples, as in 1,2,4")
    return list(dict.fromkeys(ks))      # each once


def decoders_of(args, decoder):
    """What is measured, {name: Decoder}: the one of the flags, or those of --trap, in the
    same blocks and at the same temperature."""
    if not args.trap:
        return {"": decoder}
    sure = replace(decoder, order="top_probability", select="k", value=1.0)
    return {"left_to_right": replace(sure, order="left_to_right", block_length=None),
            "confidence": replace(sure, order="confidence"), "top_probability": sure,
            "threshold": replace(sure, select="threshold", value=0.9)}


def pick_problems(args, task):
    """All problems that are evaluated; and of a shard the numbers of the first, and after
    the last. Prompts that are not padded are put in order of length: see batches_of."""
    problems = task.held_out("test", args.limit)
    if not task.is_padded:
        problems.sort(key=lambda problem: task.length_of(problem["question"]))
    # Whole batches: in another one a problem's logits are rounded in another way.
    batches = batches_of(task, problems, batch_size(task, args.samples))
    ends = np.cumsum([0] + [len(batch) for batch in batches])
    number, n = args.shard or (1, 1)
    first, end = [int(ends[len(batches) * i // n]) for i in (number - 1, number)]
    if first == end:
        raise ValueError(f"--shard {number}/{n}: {len(problems)} problems are just "
                         f"{len(batches)} batches: make fewer parts")
    return problems, first, end


def texts_of(args, work, whole, first):
    """The files of --texts, {name: Texts}, each for the same work only: of one decoder
    that file, of several one each, with their names in it. whole: all problems, of which
    the work may be a part that begins at first."""
    task = work.task
    if args.llada:
        model = f"{work.model.wte.weight.dtype} {task.digest()}".encode()
    else:
        model = Path(args.checkpoint).read_bytes()
    path, found = Path(args.texts), {}
    for name, decoder in work.decoders.items():
        same = [args.samples, args.seed, vars(decoder), whole, task.describe()]
        run = hashlib.sha256(json.dumps(same, default=str).encode() + model).hexdigest()[:12]
        own = path.with_stem(f"{path.stem}-{name}") if name else path
        found[name] = Texts(str(own), run, task, work.problems, decoder, args.samples, first)
    return found


def show_answers(task, problems, found):
    """Where another reading of the answers gives another accuracy, and texts without."""
    pairs = [(text, problem) for texts, problem in zip(found.texts, problems)
             for text in texts]
    n_none = sum(task.extracted(task.judged_text(*pair)) is None for pair in pairs)
    print(f"{n_none} of {len(pairs)} texts ({n_none / len(pairs):.1%}) have no answer that is "
          "a plain number")
    if not task.has_hashes:
        return
    ours = found.correct.mean()
    official = np.mean([official_match(text, p["solution"]) for text, p in pairs])
    if official != ours:
        print(f"accuracy by GSM8K's own expression {official:.3f}, by ours {ours:.3f}: "
              "data.py lists the differences")


@dataclass
class Work:
    """What the flags ask for."""
    model: object
    task: object
    stage: str          # of training
    decoders: dict      # name -> Decoder
    problems: list
    texts: dict         # name -> Texts; {} without --texts


def prepare(args):
    """What a user can get wrong, before any work. Raises OSError, or ValueError."""
    if args.download:
        args.data = args.data or "gsm8k_test.jsonl"
        download(args.data)
    if not args.llada and (args.shard or args.with_prompt):
        raise ValueError("--shard and --with-prompt go with --llada")
    if args.llada and not args.data:
        raise ValueError("--llada: name GSM8K's test file with --data, or --download it")
    if args.trap and args.samples > 1 and args.temperature == 0:
        raise ValueError("--trap: at temperature 0 samples are all equal; give a --temperature")
    model, task, info, decoder = load_from_flags(args, with_prompt=args.with_prompt)
    whole, first, end = pick_problems(args, task)
    work = Work(model, task, info.get("stage", ""), decoders_of(args, decoder),
                whole[first:end], {})
    if args.texts:
        work.texts = texts_of(args, work, whole, first)
    if args.csv:        # what is there stays until the end
        paths = [Path(texts.path).resolve() for texts in work.texts.values()]
        if Path(args.csv).resolve() in paths:
            raise ValueError("--csv and --texts are one file: name two")
        may_write(args.csv, RESULT_COLUMNS)
    for texts in work.texts.values():
        texts.open()
    return work


@ends_quietly
def main(argv=None):
    parser, args = parse_flags(argv)
    try:
        ks = parse_ks(args.k, args.samples)
        work = prepare(args)
    except (OSError, ValueError) as error:
        parser.error(plain(str(error)))
    for line in work.task.left_out("test", "test rows"):
        print(line)
    found = {}
    try:
        for name, decoder in work.decoders.items():
            loop = work.texts[name].loop if work.texts else None
            found[name] = evaluate(work.model, work.task, work.problems, decoder,
                                   args.samples, args.seed, name=str(decoder), loop=loop)
    except KeyboardInterrupt:
        files = ", ".join(texts.path for texts in work.texts.values())
        advice = f"; the same command goes on from {files}" if files else ""
        parser.exit(128 + 2, f"\nstopped{advice}\n")
    finally:
        for texts in work.texts.values():
            unlock(texts.holder)
    rows = {name: result_rows(work.stage, decoder, found[name], args.seed, ks)
            for name, decoder in work.decoders.items()}
    for name, decoder in work.decoders.items():
        show(args, work, decoder, found[name], rows[name], ks)
    if args.trap:
        show_trap(work.decoders, found, rows, ks)
    if args.csv:
        write_csv(args.csv, RESULT_COLUMNS, itertools.chain(*rows.values()))


def show(args, work, decoder, found, results, ks):
    """Print a decoder's table; results: its rows of results.csv."""
    rows = [(f"pass@{row['k']}", row) for row in results]
    measures = measure_rows(work.stage, decoder, found, args.seed)
    if work.task.n_lines:
        measures += derived_rows(work.stage, decoder, work.task, work.problems, found,
                                 args.seed, ks)
    rows += [(row["measure"], row) for row in measures]
    print_table(["measure", "value", "95 % interval"], [
        [name, number(row["value"]), Interval.of(row).bounds()] for name, row in rows])
    print(f"{len(work.problems)} problems x {args.samples}, {decoder}, "
          f"T={args.temperature:g}: {found.nfe:.1f} forward evaluations a row, "
          f"{found.n_forward} run here, {found.seconds:.1f} s")
    show_answers(work.task, work.problems, found)


def show_trap(decoders, found, rows, ks):
    """pass@k of all decoders in one table, and how far left to right is ahead."""
    table = []
    for name, decoder in decoders.items():
        table += pass_lines(decoder, rows[name])
    print_table(["pass@k, k =", *ks], table)
    print("  lead of left to right, over")
    first, *others = decoders
    for name in others:
        ahead = leads(found[first].correct, found[name].correct, ks)
        print(f"    {str(decoders[name]):45} {crossing(ahead)}")


if __name__ == "__main__":
    main()
