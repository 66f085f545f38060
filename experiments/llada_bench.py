"""LLaDA's layout at size: loading, memory, forward evaluations, decoders, on random weights.

    python experiments/llada_bench.py --csv llada.csv       three minutes on two cores
    python experiments/llada_bench.py --quick               seconds, on a small model

Writes a random folder of 0.5 billion parameters in bfloat16 (its vocabulary is padded to
LLaDA's 126,464 rows), measures, and removes it. Every row is of a process of its own, so
that its memory is nobody else's. Own memory is what the process has for itself; mapped
is the part of the file that it has looked at, which the system may take back.

A forward evaluation is of one canvas as JustGRPO's evaluation has them: 100 tokens of
prompt, 256 of completion, of which a block of 32 is looked at. Its limit: the time of its
matrix products alone, as large as they are there.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from tqdm import tqdm

from eval_gsm8k import print_table
from runs import ends_quietly, may_write, plain, write_csv
from sample import Decoder, generate, import_llada, pick_device

COLUMNS = ["what", "dtype", "value", "unit", "device"]
SIZE = "--layers 24 --width 896 --heads 14 --hidden 2688 --rows 126464 --max-length 4096"
SMALL = "--layers 2 --width 64 --heads 4 --hidden 192 --rows 2048"
PROMPT, LENGTH, BLOCK = 100, 256, 32
# The last block of such a canvas, so that a row takes 32 steps or fewer, not 256.
DECODERS = {
    "left to right": Decoder("left_to_right"),
    "confidence": Decoder("confidence", block_length=BLOCK),
    "two a step": Decoder("top_probability", "k", 2, block_length=BLOCK),
    "four a step": Decoder("top_probability", "k", 4, block_length=BLOCK),
}

# ----------------------------------------------------------------------------------------
# memory of a process, in bytes


def memory():
    """What this process has for itself, and of mapped files (Linux)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return tuple(1024 * int(found[name].split()[0]) for name in ("RssAnon", "RssFile"))


class Peak:
    """The highest of both while something runs, less what was there before."""

    def __enter__(self):
        self.before, self.highest, self.is_over = memory(), memory(), False
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.is_over:
            self.highest = tuple(map(max, self.highest, memory()))
            time.sleep(0.002)

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()
        self.highest = tuple(map(max, self.highest, memory()))

    def values(self):
        return [high - low for high, low in zip(self.highest, self.before)]

# ----------------------------------------------------------------------------------------
# what is measured; each in a process of its own


def seconds_of(work, device, at_least=5.0):
    """The median time of a call, of as many as fit into so many seconds; of a first one
    that does not count."""
    work()
    times = []
    while sum(times) < at_least:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def canvas_of(model, device):
    """A canvas (1, S) whose last block is masks, and which of it is looked at."""
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(1000, (1, PROMPT + LENGTH), generator=generator)
    canvas[:, -BLOCK:] = model.config.mask_id
    wanted = canvas == model.config.mask_id
    return canvas.to(device), wanted.to(device)


def loading(folder, device, dtype):
    start = time.perf_counter()
    with Peak() as peak:
        model = import_llada().load_llada(folder, device, dtype)
    seconds = time.perf_counter() - start
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    yield "parameters", sum(p.numel() for p in model.parameters()), ""
    yield "the weights", size, "bytes"
    yield "loading", seconds, "s"
    own, mapped = peak.values()
    yield "loading, own memory", own, "bytes"
    yield "loading, mapped memory", mapped, "bytes"
    canvas, wanted = canvas_of(model, device)
    with Peak() as peak, torch.no_grad():
        for _ in range(3):
            model(canvas, wanted)
    yield "an evaluation, own memory beside the weights", peak.values()[0], "bytes"


@torch.no_grad()
def evaluations(folder, device, dtype):
    """Forward evaluations a second, and what the products alone would allow."""
    model = import_llada().load_llada(folder, device, dtype)
    canvas, wanted = canvas_of(model, device)
    whole = seconds_of(lambda: model(canvas, wanted), device)
    config, weight = model.config, model.wte.weight
    inputs = {n: torch.randn(n, width, device=device).to(weight.dtype) for n, width in [
        (canvas.shape[1], config.n_embd), (BLOCK, config.n_embd)]}
    hidden = torch.randn(canvas.shape[1], config.n_hidden, device=device).to(weight.dtype)

    def products():
        x = inputs[canvas.shape[1]]
        for block in model.blocks:
            for layer in (block.q_proj, block.k_proj, block.v_proj, block.attn_out,
                          block.ff_proj, block.up_proj):
                F.linear(x, layer.weight)
            F.linear(hidden, block.ff_out.weight)
        F.linear(inputs[BLOCK], model.ff_out.weight)

    limit = seconds_of(products, device)
    yield "forward evaluations", 1 / whole, "a second"
    yield "the products alone", 1 / limit, "a second"
    yield "share of the limit", limit / whole, ""


def decoding(folder, device, dtype):
    """Tokens a second, at the end of a canvas; of random weights, so that decoders whose
    steps depend on certainty say nothing here."""
    model = import_llada().load_llada(folder, device, dtype)
    canvas, wanted = canvas_of(model, device)
    prompt = canvas[:, :-BLOCK]
    with torch.no_grad():
        model(canvas, wanted)       # the first takes longer
    for name, decoder in DECODERS.items():
        start = time.perf_counter()
        sample = generate(model, prompt, BLOCK, decoder)
        sample.nfe.item()
        yield name, BLOCK / (time.perf_counter() - start), "tokens a second"


def draws(folder, device, dtype):
    """Memory of a step at temperature 1 that looks at the whole completion: what draws
    from the whole vocabulary takes at 256 places at once."""
    model = import_llada().load_llada(folder, device, dtype)
    canvas, _ = canvas_of(model, device)
    prompt = canvas[:, :PROMPT].contiguous()
    decoder = Decoder("top_probability", "k", LENGTH, temperature=1.0)      # one step
    with Peak() as peak:
        generate(model, prompt, LENGTH, decoder)
    yield "a step in one block at T=1, own memory", peak.values()[0], "bytes"


MEASURES = {function.__name__: function
            for function in (loading, evaluations, decoding, draws)}

# ----------------------------------------------------------------------------------------


def measure(args):
    """One of these, in this process: its rows as JSON."""
    dtype = getattr(torch, args.dtype)
    rows = list(MEASURES[args.measure](Path(args.folder), args.device, dtype))
    print(json.dumps(rows))


def run(script, *flags):
    """What a script of this folder prints, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *flags]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def collect(args):
    """All of them, in processes of their own -> rows."""
    rows = []
    device = torch.cuda.get_device_name() if args.device == "cuda" else args.device
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "random"
        run("llada_folder.py", str(folder), "--dtype", "bfloat16",
            *(SMALL if args.quick else SIZE).split())
        jobs = [(name, dtype) for dtype in ("bfloat16", "float32") for name in MEASURES]
        for name, dtype in tqdm(jobs, "measures", leave=False):
            found = run("llada_bench.py", "--device", args.device, "--dtype", dtype,
                        "--measure", name, "--folder", str(folder))
            for what, value, unit in json.loads(found):
                rows.append({"what": what, "dtype": dtype, "unit": unit, "device": device,
                             "value": value if type(value) is int else f"{value:.4g}"})
    return rows


@ends_quietly
def main(argv=None):
    parser = argparse.ArgumentParser(
        description="LLaDA's layout at size.", usage=argparse.SUPPRESS, allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--csv", help="write the rows to this file")
    add("--quick", action="store_true", help="a small model: its numbers mean little")
    add("--device", default="auto", help="cuda, cpu; auto: what works of them")
    for name in ("--measure", "--folder", "--dtype"):       # of the processes' own
        add(name, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        args.device = pick_device(args.device)
        import_llada()
        if args.csv:
            may_write(args.csv, COLUMNS)
    except (OSError, ValueError) as error:
        parser.error(plain(str(error)))
    if args.measure:
        measure(args)
        return
    rows = collect(args)
    print_table(["", "dtype", "value", "unit"], [
        [row["what"], row["dtype"], row["value"], row["unit"]] for row in rows])
    if args.csv:
        write_csv(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
