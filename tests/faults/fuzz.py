"""Damaged and hostile files through sample.py and eval_gsm8k.py: one line, or the right thing.

    python tests/faults/fuzz.py                             1,000 checkpoints, 1,000 inputs
    python tests/faults/fuzz.py --seed 7 --csv fuzz.csv     others; a row for each kind

Every file must give exit status 2 and one line on stderr that names it, or do what the whole file
does. While it is read, no code may be compiled, no process started, no module imported, no file
written, no socket opened (an audit hook watches); it has 10 seconds, and 1 GB more than before.
Nothing that is printed may hold a control character. Damage by chance leaves the hash as it was,
and must be found; *forged* files have the right hash, and only their form can be refused."""
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
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from tqdm import tqdm
import eval_gsm8k
import sample
from data import GSM8K, Toy, read_jsonl, train_bpe
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


def seen(main, flags):
    """-> exit status, stdout, stderr; AssertionError if something forbidden happened."""
    out, err, status, start = io.StringIO(), io.StringIO(), 0, time.time()
    WATCH.append([])
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(f) for f in flags])
    except SystemExit as stop:
        status = stop.code
    finally:
        events = WATCH.pop()
    out, seconds = out.getvalue(), time.time() - start
    err = err.getvalue().replace("\x1b[A", "")     # a bar below the bar of this script
    assert not events, events
    assert seconds < 10, seconds
    assert all(c.isprintable() or c in "\n" for c in out), repr(out)
    assert all(c.isprintable() or c in "\n\r" for c in err), repr(err)
    return status, out, err


def is_refused(status, out, err, name):
    assert status == 2 and out == "" and err.count("\n") == 1, (status, out, err)
    assert "error: " in err and (name in err or "task" in err or "--data" in err), err
    return True


# --------------------------------------------------------------------------- damage by chance

def flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        at = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 2000))])
        data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(rng, data):
    return data[:rng.choice([0, 1, 30, len(FORMAT), 60, len(data) - 1, rng.randrange(len(data))])]


def lose(rng, data):
    at, n = rng.randrange(len(data)), rng.choice([1, 4, 512, 4096])
    return data[:at] + data[at + n:]


def zero(rng, data):        # a block that the disk has not written
    at, n = rng.randrange(len(data)), rng.choice([16, 512, 4096])
    return data[:at] + bytes(len(data[at:at + n])) + data[at + n:]


def grow(rng, data):
    at = rng.choice([0, len(data), rng.randrange(len(data))])
    return data[:at] + rng.randbytes(rng.choice([1, 32, 5000])) + data[at:]


def exchange(rng, data):    # two blocks
    n = rng.choice([4, 64, 512])
    a, b = sorted(rng.sample(range(0, len(data) - n), 2))
    if b < a + n:
        return data[:a] + data[a + n:]
    return data[:a] + data[b:b + n] + data[a + n:b] + data[a:a + n] + data[b + n:]


def noise(rng, data):
    return rng.choice([b"", FORMAT, FORMAT[:-1]]) + rng.randbytes(rng.choice([0, 7, 8, 100, 10**5]))


CHANCE = [flip, cut, lose, zero, grow, exchange, noise]


# -------------------------------------------------------------------------------------- forged

ODD = [0, -1, 1, 2, 3, 7, 2**14, 2**31, 2**63, 10**18, 10**30, -2**31, 0.5, 1e308, float("nan"),
       float("inf"), True, False, None, "", "x", "\x1b[31mred", "\ud800", "8", [], [1], [[]], {},
       {"a": 1}, [10**9, 10**9], {"dtype": "<f4", "shape": [2]}, "a\nb"]


def places(value, path=()):     # every place of a tree of dicts and lists
    yield path
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from places(part, (*path, key))


def forged_value(rng, saved):
    """Anything in place of one or two of the values; or a value missing, or one too many."""
    for _ in range(rng.choice([1, 1, 2])):
        part = rng.choice(["config", "task", "info", "model"])      # of the many weights less often
        *path, key = rng.choice([p for p in places(saved) if p and p[0] == part] or [[*saved][:1]])
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


def forged_tensor(rng, saved):
    """Weights of other shapes and types, exchanged, nan, infinite, huge."""
    weights = saved["model"]
    a, b = rng.sample(sorted(weights), 2)
    kind = rng.randrange(8)
    if kind == 0:
        weights[a], weights[b] = weights[b], weights[a]
    elif kind == 1:
        weights[a] = weights[a].to(rng.choice([torch.float64, torch.int64, torch.uint8]))
    elif kind == 2:
        weights[a] = weights[a].flatten()[:-1]
    elif kind == 3:
        weights[a] = weights[a][None]
    elif kind == 4:
        weights[a] = weights[a].T.contiguous() if weights[a].ndim == 2 else weights[a][:0]
    else:
        weights[a] = weights[a].clone()
        weights[a].view(-1)[rng.randrange(weights[a].numel())] = rng.choice(
            [float("nan"), float("inf"), -float("inf"), 1e30, -1e38, 1e5])
    return saved


def forged_config(rng, saved):
    """Sizes that would take all memory or all time."""
    name = rng.choice(["vocab_size", "max_length", "n_layer", "n_embd", "n_hidden", "n_head",
                       "mask_id", "eos_id"])
    saved["config"][name] = rng.choice([0, -1, 3, 5, 10**4, 10**6, 10**9, 10**12, 10**20])
    if rng.random() < 0.3:
        saved["task"]["n_steps"] = rng.choice([0, 7, 100, 10**6, 10**12])
    return saved


def forged_vocabulary(rng, saved):
    """The tokenizer inside a checkpoint of GSM8K."""
    lines = saved["task"]["vocabulary"].split("\n")
    at = rng.randrange(len(lines))
    lines[at] = rng.choice(["", "!", "====", "AAAA 1 2 3", base64.b64encode(b"a" * 5000).decode(),
                            "\ud800 3", "YQ==", "\0", lines[at - 1], "é 1", " ", "//8= 9"])
    saved["task"]["vocabulary"] = rng.choice(["\n", "\n", "\r", "\n\n", " "]).join(lines)
    if rng.random() < 0.3:
        saved["task"][rng.choice(["prompt_length", "completion_length"])] = rng.choice(ODD)
    return saved


VALUES = [forged_value, forged_tensor, forged_config, forged_vocabulary]


class Code:
    """Unpickling this would run a command."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch '{self.folder}/made-by-a-checkpoint'",)


def signed(text, rest=b""):     # what save would make of such a text
    data = FORMAT + len(text).to_bytes(8, "little") + text + rest
    return data + hashlib.sha256(data).digest()


def forged_text(rng, good):
    """A JSON text that is none, is endless, or promises tensors that are not there."""
    size = int.from_bytes(good[len(FORMAT):][:8], "little")
    text, rest = good[len(FORMAT) + 8:][:size], good[len(FORMAT) + 8 + size:-32]
    kind = rng.randrange(7)
    if kind == 0:
        return signed(flip(rng, text), rest)
    if kind == 1:
        return signed(rng.choice([b"[", b'{"a":', b"[{},"]) * rng.choice([10, 10**5, 10**6]), rest)
    if kind == 2:
        shape = rng.choice([[10**9], [10**6, 10**6], [-1], [2**62, 4], [0], [], [1.5], ["8"]])
        dtype = rng.choice(["<f4", "O", "<U9999", "V1000000000", "<f4,<f4", "", "|b1", "<f8"])
        return signed(json.dumps({"model": {"w": {"dtype": dtype, "shape": shape}}}).encode(), rest)
    if kind == 3:
        return signed(text, rest + rng.randbytes(rng.choice([1, 4, 4000])))
    if kind == 4:
        return signed(text, rest[:-rng.choice([1, 4, 4000])])
    if kind == 5:
        return signed(b'{"n": ' + b"9" * rng.choice([4000, 10**5, 10**6]) + b"}", rest)
    data = FORMAT + rng.choice([2**63, 2**64 - 1, len(good), 0]).to_bytes(8, "little") + text + rest
    return data + hashlib.sha256(data).digest()


def pickles(rng, folder, saved):
    """What would run code, crash or unpack to gigabytes in a loader that unpickles."""
    kind, out = rng.randrange(5), io.BytesIO()
    if kind == 0:
        data = pickle.dumps(Code(folder), protocol=rng.choice([0, 2, 4]))
    elif kind == 1:
        torch.save({**saved, "info": Code(folder)}, out)
        data = out.getvalue()
    elif kind == 2:     # a tuple in a tuple in a tuple: its hash runs out of stack
        data = b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"K\x01s."
        with zipfile.ZipFile(out, "w") as z:
            z.writestr("x/data.pkl", data)
        data = out.getvalue()
    elif kind == 3:     # 200 MB of zeros in 200 kB
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("archive/data.pkl", pickle.dumps({}))
            z.writestr("archive/data/0", bytes(rng.choice([10**5, 2 * 10**8])))
        data = out.getvalue()
    else:
        torch.save(saved, out)
        data = out.getvalue()
    return rng.choice([data, FORMAT + data, signed(data)])


# ---------------------------------------------------------------------- checkpoints, one by one

def make_checkpoints(folder):
    """-> two small ones, the toy's and GSM8K's."""
    Path(folder, "eggs.jsonl").write_text('{"question": "2 eggs", "answer": "#### 2"}\n' * 2)
    paths = []
    vocabulary = "\n".join(f"{base64.b64encode(p).decode()} {i}" for i, p in enumerate(
        train_bpe("How many eggs are left? There are 3 eggs left of 4 eggs. " * 9, 40), 256))
    for task in (Toy(), GSM8K(vocabulary, 20, 8)):
        torch.manual_seed(0)
        model = MaskedDiffusionLM(ModelConfig(
            task.tokenizer.n_vocab, task.mask_id, task.eos_id, n_layer=2, n_embd=16, n_hidden=16,
            max_length=2 * task.prompt_length + task.completion_length))
        for p in model.parameters():        # a new network hardly looks at most of them
            torch.nn.init.normal_(p, std=0.3)
        paths.append(Path(folder, f"{task.name}.pt"))
        save_checkpoint(paths[-1], model, task, stage="base", seed=0, flags={})
    return paths


def flags_for(main, path):
    more = ["--prompt", "2 eggs"] if main is sample.main else ["--data", path.parent / "eggs.jsonl"]
    return ["--checkpoint", path, "--seed", 0, *more]


def without_times(out):     # eval_gsm8k.py ends with its seconds
    return out.rpartition(", ")[0] if "forward evaluations a row" in out else out


def check_checkpoints(n, seed, folder):
    """-> kind: [tries, refused, equal, another's]."""
    rng, counts = random.Random(seed), defaultdict(lambda: [0, 0, 0, 0])
    toy, gsm8k = make_checkpoints(folder)
    good = toy.read_bytes()
    plain = {main: without_times(seen(main, flags_for(main, toy))[1]) for main in MAINS}
    path = Path(folder, "mutant.pt")
    for i in tqdm(range(n), desc="checkpoints"):
        kind = rng.choice([*CHANCE, *CHANCE, *VALUES, forged_text, pickles])
        if kind in CHANCE:
            data = kind(rng, good)
        elif kind is pickles:
            data = kind(rng, folder, load(toy))
        elif kind is forged_text:
            data = kind(rng, good)
        else:
            save(path, kind(rng, load(gsm8k if kind is forged_vocabulary else toy)))
            data = path.read_bytes()
        path.write_bytes(data)
        main = MAINS[i % 2]
        status, out, err = seen(main, flags_for(main, path))
        count = counts[kind.__name__]
        count[0] += 1
        if status:
            count[1] += is_refused(status, out, err, "mutant.pt")
        elif data == good or without_times(out) == plain[main] and kind not in CHANCE:
            count[2] += 1
        else:       # well formed in every way, but another model: only a forger makes it
            assert kind not in CHANCE, (kind.__name__, i)
            count[3] += 1
        assert not Path(folder, "made-by-a-checkpoint").exists(), (kind.__name__, i)
    return counts


# --------------------------------------------------------------------------------------- inputs

TEXTS = ["\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp.exe", "\0", "\x7f", "\x85", "\r",
         "\ufeff", "é", "\U0001f600", "\u0301" * 50, "\ud800", "9" * 5000, "1,234.50", "-0", "$5.",
         "  ", "a" * 300, "<<1+1=2>>", "<<" * 999, "#### ", "#### x", "#### 1e5", "#### ٣",
         "<|mask|>", "<|endoftext|>"]


def row_of(rng, i):
    question = Toy().problem("test", i)["question"]
    answer = f"so it is\n#### {rng.randrange(13)}"
    if rng.random() < 0.5:
        question = rng.choice([question + rng.choice(TEXTS), rng.choice(TEXTS) + question[:9]])
    if rng.random() < 0.3:
        answer = rng.choice([answer + rng.choice(TEXTS), rng.choice(TEXTS) + answer])
    return {"question": question, "answer": answer}


def line_of(rng, row):
    """A line of JSON, most of them wrong in some way."""
    text = json.dumps(row, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    kind = rng.randrange(16)
    if kind == 0:
        return flip(rng, text)
    if kind == 1:
        return cut(rng, text)
    if kind == 2:
        return text + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b"}", b",", b" "])
    if kind == 3:
        key = rng.choice(["question", "answer"])
        value = rng.choice([*(x for x in ODD if x != "\ud800"), {"a": [None] * 9}, [row]])
        return json.dumps({**row, key: value}).encode()
    if kind == 4:
        return json.dumps({k: row[k] for k in rng.sample(sorted(row), rng.randrange(2))}).encode()
    if kind == 5:
        return rng.choice([b"[" * 10**5, b'{"a":' * 10**4, b"[]", b"null", b"7", b'"a"', b"NaN"])
    if kind == 6:
        n = rng.choice([4301, 50000, 10**6])
        return json.dumps({**row, "answer": "#### " + "7" * n}).encode()
    if kind == 7:
        n = rng.choice([70, 1000, 60000, 70000, 10**6])
        return json.dumps({**row, "question": "x" * n}).encode()
    if kind == 8:
        return b'{"question": "a?", "answer": "#### 1", "n": ' + b"9" * 10**5 + b"}"
    return text


def file_of(rng):
    """-> bytes of a file of 1 to 6 lines."""
    lines = [line_of(rng, row_of(rng, i)) for i in range(rng.randrange(1, 7))]
    if rng.random() < 0.4:      # all of them good
        lines = [json.dumps(row_of(rng, i)).encode() for i in range(len(lines))]
    data = rng.choice([b"\n", b"\n", b"\r\n"]).join(lines) + rng.choice([b"", b"\n"])
    kind = rng.randrange(12)
    if kind == 0:
        return b"\xef\xbb\xbf" + data
    if kind == 1:
        return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32"]))
    if kind == 2:
        return rng.choice([b"", b"\n", b"\0" * 100, rng.randbytes(1000), b"\xef\xbb\xbf"])
    return data


def expected(data):
    """An independent reading of the file: its questions, if json reads them; else nothing."""
    data = data[3:] if data[:3] == b"\xef\xbb\xbf" else data
    return [json.loads(line)["question"] for line in data.splitlines()]


def check_inputs(n, seed, folder):
    """-> kind: [tries, refused, read whole, 0]."""
    rng, counts = random.Random(seed), defaultdict(lambda: [0, 0, 0, 0])
    toy, gsm8k = make_checkpoints(folder)
    path = Path(folder, "mutant.jsonl")
    for i in tqdm(range(n), desc="inputs"):
        main = MAINS[i % 2]
        if i % 5 == 4:      # a question on the command line: bytes that are no UTF-8 are surrogates
            text = "".join(rng.choice([*TEXTS, "\udcff", " eggs", "2", rng.randbytes(4).decode(
                "utf-8", "surrogateescape")]) for _ in range(rng.randrange(1, 9)))
            flags = ["--checkpoint", rng.choice([toy, gsm8k]), f"--prompt={text}"]
            status, out, err = seen(sample.main, flags)
            count = counts["prompt"]
            if status:
                count[1] += is_refused(status, out, err, "tokens where")
            count[2] += not status
        else:
            path.write_bytes(data := file_of(rng))
            checkpoint = rng.choice([toy, gsm8k])
            status, out, err = seen(main, ["--checkpoint", checkpoint, "--data", path, *(
                ["--limit", 1] if main is eval_gsm8k.main else [])])
            count = counts["file of problems"]
            if status:
                count[1] += is_refused(status, out, err, "mutant.jsonl" if ", line " in err else "")
                assert ", line " in err or "is empty" in err or "at most" in err, err
            else:
                rows = read_jsonl(path)
                assert [row["question"] for row in rows] == expected(data), data
                count[2] += 1
        count[0] += 1
    return counts


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="files of each of the two sorts")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--csv", help="write the counts to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    sys.addaudithook(hook)
    rows, start = [], time.time()
    with tempfile.TemporaryDirectory() as folder:
        for path in make_checkpoints(folder):       # whatever is imported late is imported now
            for script in MAINS:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                    script([str(flag) for flag in flags_for(script, path)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for check in (check_checkpoints, check_inputs):
            for kind, counts in sorted(check(args.n, args.seed, folder).items()):
                rows.append(dict(zip(["what", "tries", "refused", "equal", "another"],
                                     [kind, *counts])))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()))
    print(f"{time.time() - start:.0f} s; {more:.2f} GB more than before the first file")
    assert more < 1, more
    if args.csv:
        write_csv(args.csv, [*rows[0]], rows)
    return rows


if __name__ == "__main__":
    main()
