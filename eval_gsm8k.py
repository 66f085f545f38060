"""Measures: accuracy and pass@k with intervals, evaluations spent, forks bypassed.

    python eval_gsm8k.py                                       accuracy on the toy's test split
    python eval_gsm8k.py --samples 32 --temperature 0.6 --k 1,2,4,8,16,32      pass@k
    python eval_gsm8k.py --checkpoint gsm8k/justgrpo.pt --data test.jsonl      the real GSM8K

Every interval is a 95 % bootstrap over problems: it does not say what another seed would do."""
import csv
import functools
import hashlib
import io
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from data import plain
from model import write_whole
from sample import add_decoder_flags, generate, load_from_flags, new_parser, text_length

KEY = ["stage", "order", "selection", "block_length", "temperature"]
RESULT_COLUMNS = [*KEY, "k", "value", "low", "high", "nfe", "n_problems", "n_samples", "seed"]
MEASURE_COLUMNS = [*KEY, "measure", "value", "low", "high", "seed"]
GSM8K_TEST = ("https://raw.githubusercontent.com/openai/grade-school-math/"
              "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/test.jsonl")
GSM8K_TEST_SHA256 = "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"

def pass_at_k(correct, k):
    """Unbiased pass@k of each problem, 1 - C(n-c, k) / C(n, k), as a product that can't overflow
    (Chen et al. 2021, arXiv 2107.03374, section 2.1). correct (Q, n) of 0/1 -> (Q,)."""
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples a problem: k goes from 1 to --samples")
    return np.array([1.0 if n - c < k else 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
                     for c in correct.sum(1).astype(int)])

def bootstrap(numerator, denominator=None, n_resamples=2000):
    """-> value, low, high of sum(numerator) / sum(denominator) over problems (Q,), or the mean."""
    x = np.asarray(numerator, dtype=float)
    y = np.ones_like(x) if denominator is None else np.asarray(denominator, dtype=float)
    pick = np.random.default_rng(0).integers(len(x), size=(n_resamples, len(x)))
    with np.errstate(invalid="ignore"):     # 0/0 (no fork in any text) is nan, and shown as nan
        value, ratio = x.sum() / y.sum(), x[pick].sum(1) / y[pick].sum(1)
    ratio = ratio[np.isfinite(ratio)]
    return (value, *(np.percentile(ratio, [2.5, 97.5]) if len(ratio) else (np.nan, np.nan)))

def measure(task, sample):
    """name -> numerator (B,), denominator (B,), of everything that is not an accuracy."""
    tokens, rank, L = sample.tokens, sample.rank, sample.rank.shape[1]
    committed, one, lengths = rank < L, torch.ones(len(rank)), text_length(tokens, task.eos_id)
    rows = {"tokens_per_evaluation": (lengths, sample.nfe),
            "non_top_commits": ((committed & ~sample.is_top).sum(1), committed.sum(1))}
    if task.n_steps:
        forks, inside = task.forks(tokens), torch.arange(L, device=rank.device) < lengths[:, None]
        body = inside & (tokens != task.eos_id)
        # Bypassed: something to the right, before end-of-text, came earlier. (Blocks need no word
        # here: a later one is not begun before this one is full.)
        first = rank.masked_fill(~body, L).flip(1).cummin(1).values.flip(1)  # from here on
        for name, where in ("fork", forks & inside), ("other", ~forks & inside):
            rows[f"bypass_{name}"] = ((first < rank) & where).sum(1), where.sum(1)
            rows[f"entropy_{name}"] = (sample.entropy * where).sum(1), where.sum(1)
        end = rank.gather(1, lengths[:, None] - 1)[:, 0]    # early: before something on its left
        is_well_formed = functools.cache(lambda t: task.is_well_formed(task.text(t)))
        early = (end < rank.masked_fill(~body, -1).amax(1)) & (tokens == task.eos_id).any(1)
        malformed = torch.tensor([not is_well_formed(tuple(t)) for t in tokens.tolist()])
        rows |= {"early_end": (early, one), "malformed": (malformed, one)}
    return {k: tuple(x.cpu().double().numpy() for x in pair) for k, pair in rows.items()}

def evaluate(model, task, problems, decoder, n_samples=1, seed=0, budget=2**23, name=None,
             decode=generate, walk=lambda n, generator, memory: range(n)):
    """-> dict: correct (Q, n), texts (Q lists of n), nfe (mean), n_forward, seconds, measures: name
    -> (numerator, denominator), (Q,) each. budget: probabilities a step; name: a progress bar's;
    walk: yields the numbers of the batches, as train.steps does, which can stop and go on."""
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    start, read, L = time.time(), functools.cache(task.text), task.completion_length   # they repeat
    memory = {"texts": [], "nfe": [], "parts": [], "n_forward": 0}
    chunk = max(1, budget // (n_samples * L * task.tokenizer.n_vocab))      # problems a batch
    n = -(-len(problems) // chunk)
    for i in tqdm(walk(n, generator, memory), name, n, leave=False, disable=name is None):
        prompts = task.prompts([p["question"] for p in problems[i * chunk:(i + 1) * chunk]])
        prompts = prompts.to(device).repeat_interleave(n_samples, dim=0)
        sample = decode(model, prompts, L, decoder,
                        lambda: torch.rand(len(prompts), L, generator=generator))
        memory["texts"] += [read(tuple(tokens)) for tokens in sample.tokens.tolist()]
        memory["nfe"] += sample.nfe.tolist()
        memory["parts"].append(measure(task, sample))
        memory["n_forward"] += sample.n_forward
    texts, nfe, parts, n_forward = memory.values()
    sums = {key: tuple(np.concatenate([p[key][side] for p in parts]).reshape(-1, n_samples).sum(1)
                       for side in (0, 1)) for key in parts[0]}
    texts = [texts[i:i + n_samples] for i in range(0, len(texts), n_samples)]
    correct = [[task.reward(text, p["answer"]) for text in row] for row, p in zip(texts, problems)]
    if n_samples > 1:
        sums["distinct"] = [len(set(row)) for row in texts], [1] * len(texts)
    return {"correct": np.array(correct), "texts": texts, "measures": sums, "n_forward": n_forward,
            "nfe": float(np.mean(nfe)), "seconds": time.time() - start}

def interval(*pair):
    return {k: round(float(v), 5) for k, v in zip(("value", "low", "high"), bootstrap(*pair))}

def result_rows(stage, decoder, result, seed, ks=(1,)):  # -> rows of results.csv, measures.csv
    key = dict(zip(KEY, [stage, decoder.order, decoder.selection, decoder.block_length or "",
                         decoder.temperature]), seed=seed)
    n_problems, n_samples = result["correct"].shape
    rows = [{**key, "k": k, **interval(pass_at_k(result["correct"], k)), "n_samples": n_samples,
             "n_problems": n_problems, "nfe": round(result["nfe"], 4)} for k in ks]
    return rows, [{**key, "measure": m, **interval(*p)} for m, p in result["measures"].items()]

def write_csv(path, columns, rows):
    buffer = io.StringIO()
    rows = [[row.get(column, "") for column in columns] for row in rows]
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    write_whole(path, buffer.getvalue().encode())

def read_csv(path):
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))

def print_table(header, rows):  # the first column flush left; a row may stop early
    rows = [[str(c) for c in row] for row in [header, *rows]]
    width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(header))]
    for first, *rest in rows:
        print(" ", first.ljust(width[0]), *(" " + c.rjust(w) for c, w in zip(rest, width[1:])))

def download(path):  # GSM8K's test file, once; raises OSError or ValueError
    there = Path(path).is_file()
    try:
        with open(path, "rb") if there else urllib.request.urlopen(GSM8K_TEST, timeout=30) as file:
            data = file.read(2_000_000)
    except (OSError, HTTPException) as e:
        raise OSError(f"no download ({e}): put {GSM8K_TEST} at {path}, or use --data") from None
    if hashlib.sha256(data).hexdigest() != GSM8K_TEST_SHA256:
        raise ValueError(f"{path} is not GSM8K's test file (SHA-256): remove it" if there else
                         f"{GSM8K_TEST} is not the file it was (SHA-256); nothing was saved")
    if not there:
        write_whole(path, data)

def main(argv=None):
    parser = new_parser("Accuracy or pass@k of a checkpoint, in any decoding order.")
    parser.add_argument("--download", action="store_true", help="fetch GSM8K's test file, use it")
    parser.add_argument("--limit", type=int, default=400, help="how many problems")
    parser.add_argument("--k", default="1", help="pass@k for these k, as in 1,2,4")
    parser.add_argument("--csv", help="write the rows to this file")
    add_decoder_flags(parser)
    args = parser.parse_args(argv)
    try:
        if args.download:
            args.data = args.data or "gsm8k_test.jsonl"
            download(args.data)
        model, task, info, decoder = load_from_flags(args)
        ks = [int(k) if k.strip().isdecimal() else 0 for k in args.k.split(",")]
        if not 1 <= min(ks) <= max(ks) <= args.samples:
            raise ValueError(f"--k {args.k}: whole numbers from 1 to --samples, as in 1,2,4")
        if args.limit < 1:
            raise ValueError("--limit must be 1 or more")
        problems = task.held_out("test", args.limit)
        if args.csv:
            path = Path(args.csv)       # can it be written? What is there stays until the end
            write_whole(path, path.read_bytes() if path.is_file() else b"")
    except (OSError, ValueError) as error:
        parser.error(plain(str(error)))
    if n := task.too_long.get("test"):
        print(f"{n} rows do not fit this model's canvas and are left out")
    result = evaluate(model, task, problems, decoder, args.samples, args.seed, name="decoding")
    rows, measures = result_rows(info.get("stage", ""), decoder, result, args.seed, ks)
    print_table(["measure", "value", "95 % interval"], [
        [r.get("measure") or f"pass@{r['k']}", f"{r['value']:.3f}",
         f"{r['low']:.3f} to {r['high']:.3f}"] for r in rows + measures])
    print(f"{len(problems)} problems x {args.samples}, {decoder}, T={args.temperature:g}: "
          f"{result['nfe']:.1f} forward evaluations a row, {result['n_forward']} run in all, "
          f"{result['seconds']:.1f} s")
    try:
        if args.csv:
            write_csv(args.csv, RESULT_COLUMNS, rows)
    except OSError as error:
        parser.exit(1, f"{parser.prog}: error: {plain(str(error))}\n")

if __name__ == "__main__":
    main()
