"""Damaged and hostile files through sample.py and eval_gsm8k.py: one line, or the right thing.

    python tests/faults/fuzz.py                             1,000 checkpoints, 1,000 inputs
    python tests/faults/fuzz.py --seed 7 --csv fuzz.csv     others; a row for each kind

Every file must give exit status 2 and one line on stderr that names it, or do what the whole file
does. While it is read, no code may be compiled, no process started, no module imported, no file
written, no socket opened (an audit hook watches); it has 10 seconds, and 1 GB more than before.
Nothing that is printed may hold a control character. Damage by chance leaves the hash as it was,
and must be found; *forged* files have the right hash, and only their form can be refused.
"""
import argparse
import base64
import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from tqdm import tqdm

import eval_gsm8k
import sample
from data import GSM8K, Worksheet, read_jsonl, train_bpe
from model import MaskedDiffusionLM, ModelConfig
from runs import FORMAT, load, save, write_csv
from sample import save_checkpoint

MAINS = sample.main, eval_gsm8k.main
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class",
             "socket.", "os.mkdir", "os.remove", "os.rename", "shutil.", "ctypes.", "import")
WATCH = []      # while a file is read: the list of what the hook saw


def hook(event, args):
    if WATCH:
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or event.startswith(FORBIDDEN):
            WATCH[-1].append((event, str(args)[:100]))


def seen(main, *flags):
    """Exit status, stdout and stderr; AssertionError if something forbidden happened."""
    out, err, status, start = io.StringIO(), io.StringIO(), 0, time.monotonic()
    WATCH.append([])
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(flag) for flag in flags])
    except SystemExit as stop:
        status = stop.code
    finally:
        events = WATCH.pop()
    assert not events, events
    assert time.monotonic() - start < 10
    out = out.getvalue()
    err = err.getvalue().replace("\x1b[A", "")     # a bar below the bar of this script
    assert all(c.isprintable() or c == "\n" for c in out), repr(out)
    assert all(c.isprintable() or c in "\n\r" for c in err), repr(err)
    return status, out, err


def assert_refused(status, out, err, name):
    assert status == 2 and out == "" and err.count("\n") == 1, (status, out, err)
    assert "error: " in err and (name in err or "task" in err or "--data" in err), err

# ----------------------------------------------------------------------------------------
# damage by chance


def flip(rng, data):
    """Some bits, half of them in what stands before the weights."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        end = rng.choice([len(data), min(len(data), 2000)])
        data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(rng, data):
    return data[:rng.choice([0, 1, 30, len(FORMAT), 60, len(data) - 1, rng.randrange(len(data))])]


def lose(rng, data):
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 4, 64, 4096]):]


def zero(rng, data):
    """A block that the disk has not written."""
    start, size = rng.randrange(len(data)), rng.choice([16, 512, 4096])
    lost = data[start:start + size]
    return data[:start] + bytes(len(lost)) + data[start + size:]


def grow(rng, data):
    start = rng.choice([0, len(data), rng.randrange(len(data))])
    return data[:start] + rng.randbytes(rng.choice([1, 32, 5000])) + data[start:]


def exchange(rng, data):
    """Two blocks; or, where they overlap, one is lost."""
    n = rng.choice([4, 64, 512])
    a, b = sorted(rng.sample(range(0, len(data) - n), 2))
    if b < a + n:
        return data[:a] + data[a + n:]
    return data[:a] + data[b:b + n] + data[a + n:b] + data[a:a + n] + data[b + n:]


def noise(rng, data):
    return rng.choice([b"", FORMAT, FORMAT[:-1]]) + rng.randbytes(rng.choice([0, 7, 8, 100, 10**5]))


CHANCE = [flip, cut, lose, zero, grow, exchange, noise]

# ----------------------------------------------------------------------------------------
# forged: other values under the right hash

ODD = [0, -1, 1, 2, 3, 7, 2**14, 2**31, 2**63, 10**18, 10**30, -2**31, 0.5, 1e308, float("nan"),
       float("inf"), True, False, None, "", "x", "\x1b[31mred", "\ud800", "8", [], [1], [[]], {},
       {"a": 1}, [10**9, 10**9], {"dtype": "<f4", "shape": [2]}, "a\nb"]
SIZES = [0, -1, 3, 5, 7, 100, 10**4, 10**6, 10**9, 10**12, 10**20]


def places(value, path=()):
    """Every place of a tree of dicts, as a path of keys."""
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*path, key))


def forged_value(rng, saved):
    """Anything in place of one or two of the values; or a value missing, or one too many."""
    for _ in range(rng.choice([1, 1, 2])):
        part = rng.choice(["config", "task", "info", "model"])      # of the many weights less often
        within = [path for path in places(saved) if path[:1] == (part,)]
        *path, key = rng.choice(within or [[*saved][:1]])
        part = saved
        for name in path:
            part = part[name]
        kind = rng.randrange(8)
        if kind == 0:
            del part[key]
        elif kind == 1:
            part[f"{key}_"] = part[key]
        elif kind == 2 and type(part[key]) is int:
            part[key] += rng.choice([-1, 1, 8, 1000])
        else:
            part[key] = rng.choice(ODD)
    return saved


def forged_size(rng, saved):
    """Sizes that would take all memory or all time."""
    name = rng.choice([name for name, value in saved["config"].items() if type(value) is int])
    saved["config"][name] = rng.choice(SIZES)
    if rng.random() < 0.3:
        saved["task"][rng.choice(["n_lines", "largest"])] = rng.choice(SIZES)
    return saved


def forged_tensor(rng, saved):
    """Weights of other shapes and types, exchanged, nan, infinite, huge."""
    weights = saved["model"]
    name, other = rng.sample(sorted(weights), 2)
    weight = weights[name]

    def spoilt():
        copy = weight.clone()
        copy.view(-1)[rng.randrange(weight.numel())] = rng.choice(
            [float("nan"), float("inf"), -float("inf"), 1e30, -1e38, 1e5])
        return copy

    weights[name] = rng.choice([
        lambda: weights.pop(other), lambda: weight.flatten()[:-1], lambda: weight[None],
        lambda: weight.to(rng.choice([torch.float64, torch.int64, torch.uint8])),
        lambda: weight.T.contiguous() if weight.ndim == 2 else weight[:0],
        spoilt, spoilt, spoilt])()
    weights.setdefault(other, weight)       # then the two are exchanged
    return saved


def forged_vocabulary(rng, saved):
    """The tokenizer inside a checkpoint of GSM8K."""
    lines = saved["task"]["vocabulary"].split("\n")
    number = rng.randrange(len(lines))
    long = base64.b64encode(b"a" * 5000).decode()
    lines[number] = rng.choice(["", "!", "====", "AAAA 1 2 3", long, "\ud800 3", "YQ==", "\0",
                                lines[number - 1], "é 1", " ", "//8= 9"])
    saved["task"]["vocabulary"] = rng.choice(["\n", "\n", "\r", "\n\n", " "]).join(lines)
    if rng.random() < 0.3:
        saved["task"][rng.choice(["prompt_length", "completion_length"])] = rng.choice(ODD)
    return saved


VALUES = [forged_value, forged_size, forged_tensor, forged_vocabulary]

# ----------------------------------------------------------------------------------------
# forged: other texts, and pickles


def signed(text, rest=b"", size=None):
    """What runs.save would make of this JSON text and these bytes of tensors."""
    size = len(text) if size is None else size
    data = FORMAT + size.to_bytes(8, "little") + text + rest
    return data + hashlib.sha256(data).digest()


def forged_text(rng, good):
    """A JSON text that is none, is endless, or promises tensors that are not there."""
    size = int.from_bytes(good[len(FORMAT):][:8], "little")
    body = good[len(FORMAT) + 8:-32]
    text, rest = body[:size], body[size:]

    def promise():
        shape = rng.choice([[10**9], [10**6, 10**6], [-1], [2**62, 4], [0], [], [1.5], ["8"]])
        dtype = rng.choice(["<f4", "O", "<U9999", "V1000000000", "<f4,<f4", "", "|b1", "<f8"])
        return json.dumps({"model": {"w": {"dtype": dtype, "shape": shape}}}).encode()

    def endless():
        return rng.choice([b"[", b'{"a":', b"[{},"]) * rng.choice([10, 10**5, 10**6])

    return rng.choice([
        lambda: signed(flip(rng, text), rest), lambda: signed(endless(), rest),
        lambda: signed(promise(), rest),
        lambda: signed(text, rest + rng.randbytes(rng.choice([1, 4, 4000]))),
        lambda: signed(text, rest[:-rng.choice([1, 4, 4000])]),
        lambda: signed(b'{"n": ' + b"9" * rng.choice([4000, 10**5, 10**6]) + b"}", rest),
        lambda: signed(text, rest, rng.choice([2**63, 2**64 - 1, len(good), 0]))])()


class Code:
    """Unpickling this would run a command."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch '{self.folder}/made-by-a-checkpoint'",)


def zipped(files):
    """A zip file, as torch.save makes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()


def torch_saved(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def pickles(rng, folder, saved):
    """What would run code, crash or unpack to gigabytes in a loader that unpickles."""
    deep = b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"K\x01s."    # its hash runs out of stack
    data = rng.choice([
        lambda: pickle.dumps(Code(folder), protocol=rng.choice([0, 2, 4])),
        lambda: torch_saved({**saved, "info": Code(folder)}),
        lambda: zipped({"data.pkl": deep}),
        lambda: zipped({"data.pkl": pickle.dumps({}), "data/0": bytes(2 * 10**8)}),
        lambda: torch_saved(saved)])()
    return rng.choice([data, FORMAT + data, signed(data)])

# ----------------------------------------------------------------------------------------
# checkpoints, one by one


def make_checkpoints(folder):
    """Two small ones, the toy's and GSM8K's; and a file of problems."""
    Path(folder, "eggs.jsonl").write_text('{"question": "2 eggs", "answer": "#### 2"}\n' * 2)
    pieces = train_bpe("How many eggs are left? There are 3 eggs left of 4 eggs. " * 9, 40)
    vocabulary = "\n".join(f"{base64.b64encode(piece).decode()} {rank}"
                           for rank, piece in enumerate(pieces, 256))
    paths = []
    for task in (Worksheet(), GSM8K(vocabulary, 20, 8)):
        torch.manual_seed(0)
        model = MaskedDiffusionLM(ModelConfig(
            task.tokenizer.n_vocab, task.mask_id, task.eos_id, n_layer=2, n_embd=16, n_hidden=16,
            max_length=2 * task.prompt_length + task.completion_length))
        for weight in model.parameters():       # a new network hardly looks at most of them
            torch.nn.init.normal_(weight, std=0.3)
        paths.append(Path(folder, f"{task.name}.pt"))
        save_checkpoint(paths[-1], model, task, stage="base", seed=0, flags={})
    return paths


def read_checkpoint(main, path):
    """What a program does with it: exit status, stdout less its seconds, stderr."""
    flags = ["--data", path.parent / "eggs.jsonl"]
    if main is sample.main:
        flags = ["--prompt", "2 eggs"]
    status, out, err = seen(main, "--checkpoint", path, "--seed", 0, *flags)
    if "forward evaluations a row" in out:
        out = out.rpartition(", ")[0]
    return status, out, err


def mutant(rng, kind, folder, toy, gsm8k):
    """The bytes of a checkpoint that is damaged in this way."""
    if kind in CHANCE or kind is forged_text:
        return kind(rng, toy.read_bytes())
    if kind is pickles:
        return pickles(rng, folder, load(toy))
    path = Path(folder, "forged.pt")
    save(path, kind(rng, load(gsm8k if kind is forged_vocabulary else toy)))
    return path.read_bytes()


def check_checkpoints(n, seed, folder):
    """How many, as a Counter of pairs: kind, what came of it."""
    rng, counts = random.Random(seed), Counter()
    toy, gsm8k = make_checkpoints(folder)
    path, good = Path(folder, "mutant.pt"), toy.read_bytes()
    expected = {main: read_checkpoint(main, toy)[1] for main in MAINS}
    for number in tqdm(range(n), desc="checkpoints"):
        kind = rng.choice([*CHANCE, *CHANCE, *VALUES, forged_text, pickles])
        data = mutant(rng, kind, folder, toy, gsm8k)
        path.write_bytes(data)
        main = MAINS[number % 2]
        status, out, err = read_checkpoint(main, path)
        if status:
            assert_refused(status, out, err, "mutant.pt")
            result = "refused"
        elif data == good or (out == expected[main] and kind not in CHANCE):
            result = "equal"
        else:       # well formed in every way, but another model: only a forger makes it
            assert kind not in CHANCE, (kind.__name__, number)
            result = "another"
        counts[kind.__name__, result] += 1
        assert not Path(folder, "made-by-a-checkpoint").exists(), (kind.__name__, number)
    return counts

# ----------------------------------------------------------------------------------------
# inputs: files of problems, questions on the command line

TEXTS = ["\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp.exe", "\0", "\x7f", "\x85", "\r",
         "\ufeff", "é", "\U0001f600", "\u0301" * 50, "\ud800", "9" * 5000, "1,234.50", "-0", "$5.",
         "  ", "a" * 300, "<<1+1=2>>", "<<" * 999, "#### ", "#### x", "#### 1e5", "#### ٣",
         "<|mask|>", "<|endoftext|>"]


def row_of(rng, number):
    question = Worksheet().problem("test", number)["question"]
    answer = f"so it is\n#### {rng.randrange(13)}"
    if rng.random() < 0.5:
        question = rng.choice([question + rng.choice(TEXTS), rng.choice(TEXTS) + question[:9]])
    if rng.random() < 0.3:
        answer = rng.choice([answer + rng.choice(TEXTS), rng.choice(TEXTS) + answer])
    return {"question": question, "answer": answer}


def line_of(rng, row):
    """A line of JSON, most of them wrong in some way."""
    text = json.dumps(row, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    odd = [*(value for value in ODD if value != "\ud800"), {"a": [None] * 9}, [row]]

    def changed(**values):
        return json.dumps({**row, **values}).encode()

    return rng.choice([
        lambda: flip(rng, text), lambda: cut(rng, text),
        lambda: text + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b"}", b",", b" "]),
        lambda: changed(**{rng.choice(sorted(row)): rng.choice(odd)}),
        lambda: json.dumps({key: row[key] for key in sorted(row)[:rng.randrange(2)]}).encode(),
        lambda: rng.choice([b"[" * 10**5, b'{"a":' * 10**4, b"[]", b"null", b"7", b'"a"', b"NaN"]),
        lambda: changed(answer="#### " + "7" * rng.choice([4301, 50000, 10**6])),
        lambda: changed(question="x" * rng.choice([70, 1000, 60000, 70000, 10**6])),
        lambda: b'{"question": "a?", "answer": "#### 1", "n": ' + b"9" * 10**5 + b"}",
        *[lambda: text] * 7])()


def file_of(rng):
    """The bytes of a file of 1 to 6 lines."""
    n_lines = rng.randrange(1, 7)
    lines = [line_of(rng, row_of(rng, number)) for number in range(n_lines)]
    if rng.random() < 0.4:      # all of them good
        lines = [json.dumps(row_of(rng, number)).encode() for number in range(n_lines)]
    data = rng.choice([b"\n", b"\n", b"\r\n"]).join(lines) + rng.choice([b"", b"\n"])
    kind = rng.randrange(12)
    if kind == 0:
        return b"\xef\xbb\xbf" + data
    if kind == 1:
        return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32"]))
    if kind == 2:
        return rng.choice([b"", b"\n", b"\0" * 100, rng.randbytes(1000), b"\xef\xbb\xbf"])
    return data


def prompt_of(rng):
    """A question; bytes of a command line that are no UTF-8 are surrogates in Python."""
    bytes_of_any_kind = rng.randbytes(4).decode("utf-8", "surrogateescape")
    return "".join(rng.choice([*TEXTS, "\udcff", " eggs", "2", bytes_of_any_kind])
                   for _ in range(rng.randrange(1, 9)))


def expected_questions(data):
    """An independent reading of a file that is said to be whole."""
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    return [json.loads(line)["question"] for line in lines]


def check_prompt(rng, checkpoint):
    status, out, err = seen(sample.main, "--checkpoint", checkpoint, f"--prompt={prompt_of(rng)}")
    if status:
        assert_refused(status, out, err, "tokens where")
    return status


def check_file(rng, checkpoint, main, path):
    data = file_of(rng)
    path.write_bytes(data)
    flags = ["--limit", 1] if main is eval_gsm8k.main else []
    status, out, err = seen(main, "--checkpoint", checkpoint, "--data", path, *flags)
    if status:
        assert_refused(status, out, err, "mutant.jsonl" if ", line " in err else "")
        assert ", line " in err or "is empty" in err or "at most" in err, err
    else:
        assert [row["question"] for row in read_jsonl(path)] == expected_questions(data), data
    return status


def check_inputs(n, seed, folder):
    """How many, as a Counter of pairs: kind, what came of it."""
    rng, counts = random.Random(seed), Counter()
    checkpoints = make_checkpoints(folder)
    for number in tqdm(range(n), desc="inputs"):
        checkpoint = rng.choice(checkpoints)
        if number % 5 == 4:
            kind, status = "prompt", check_prompt(rng, checkpoint)
        else:
            kind = "file of problems"
            status = check_file(rng, checkpoint, MAINS[number % 2], Path(folder, "mutant.jsonl"))
        counts[kind, "refused" if status else "equal"] += 1
    return counts


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="files of each of the two sorts")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--csv", help="write the counts to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    sys.addaudithook(hook)
    rows, start = [], time.monotonic()
    results = "refused", "equal", "another"
    with tempfile.TemporaryDirectory() as folder:
        for path in make_checkpoints(folder):       # whatever is imported late is imported now
            for program in MAINS:
                with contextlib.redirect_stdout(io.StringIO()):
                    program(["--checkpoint", str(path), "--data", f"{folder}/eggs.jsonl"])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for check in (check_checkpoints, check_inputs):
            counts = check(args.n, args.seed, folder)
            for kind in sorted({kind for kind, _ in counts}):
                found = {result: counts[kind, result] for result in results}
                rows.append({"what": kind, "tries": sum(found.values()), **found})
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    for row in rows:
        print(" ".join(f"{name} {value}" for name, value in row.items()))
    print(f"{time.monotonic() - start:.0f} s; {more:.2f} GB more than before the first file")
    assert more < 1, more
    if args.csv:
        write_csv(args.csv, [*rows[0]], rows)
    return rows


if __name__ == "__main__":
    main()
