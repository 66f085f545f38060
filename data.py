"""The task: what the model reads, and what counts as right.

The toy is GSM8K in miniature. A question tells a story about one number; a solution may write the
running value after each operation, and ends in GSM8K's own "#### N":

    Bob has 8 of 12, gives 5, gets 1, times 3, swaps all, gets 6, gives 1. How many?
    | 8 -5 -> 3| +1 -> 4| *3 -> 12| ~all -> 0| +6 -> 6| -1 -> 5 #### 5     every step written
    | #### 5                                                                "in the head"

At every bar the text forks: one more step, or a jump to "####" (with probability `direct` at the
start, `skip` later). Both are right, but only writing every step makes it easy to be right. So the
token at a fork is truly uncertain, all else follows, and we know which."""
import base64
import json
import random
import re
import zlib
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

import tiktoken
import torch

MASK, EOS = "<|mask|>", "<|endoftext|>"
SPLITS = "train", "validation", "test"
# GSM8K's own is `#### (\-?[0-9\.\,]+)`: first match, commas removed, compared as text. Here a
# dollar sign may stand before it, a full stop or comma after it is not part of it, and 18.00 is 18.
ANSWER = re.compile(r"#### (-?)\$?(-?[0-9.,]*[0-9])")
# Each digit alone, words with their space before, all else somewhere: tiktoken drops what is not.
GSM8K_PATTERN = r"\d| ?[^\W\d_]+| ?(?:[^\w\s]|_)+|\s+"

def extract_answer(text):
    """The number after the first "#### " that is followed by one, as a Decimal, or None."""
    match = ANSWER.search(text)
    number = "".join(match.groups()).replace(",", "") if match else ""
    return Decimal(number) if re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)", number) else None

def exact_match(text, answer):
    """1.0 if the text's answer is this number (a string), else 0.0: the reward and the accuracy."""
    return float(extract_answer(text) == Decimal(answer))

def make_tokenizer(pieces, pattern):
    """A tiktoken encoding built in memory (get_encoding would download): the 256 bytes, `pieces`
    (in merge order, each once), MASK, EOS. A word of `pattern` that is a piece is one token."""
    ranks = {p: i for i, p in enumerate(dict.fromkeys([bytes([b]) for b in range(256)] + pieces))}
    return tiktoken.Encoding("flexibility-trap", pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens={MASK: len(ranks), EOS: len(ranks) + 1})

def train_bpe(text, n_merges, pattern=GSM8K_PATTERN):
    """Byte-pair encoding (Sennrich et al. 2016): n_merges times, fuse the most frequent pair of
    neighbours; -> the fused pieces in order. Only the words that a merge touches are recounted."""
    words = Counter(w for w in re.findall(pattern, text) if len(w) < 100)    # more take hours
    parts = {word: [bytes([b]) for b in word.encode()] for word in words}
    counts, places, pieces = Counter(), defaultdict(set), []
    def count(word, sign):
        for pair in zip(parts[word], parts[word][1:]):
            counts[pair] += sign * words[word]
            places[pair].add(word)
    for word in words:
        count(word, 1)
    while len(pieces) < n_merges:
        best = max(counts, key=lambda pair: (counts[pair], pair), default=None)   # ties: one order
        if counts[best] < 2:
            break
        pieces.append(best[0] + best[1])
        for word in places.pop(best):
            count(word, -1)
            merged = parts[word][:1]
            for part in parts[word][1:]:    # left to right, so that "aaa" becomes "aa", "a"
                merged[-1:] = [pieces[-1]] if (merged[-1], part) == best else [merged[-1], part]
            parts[word] = merged
            count(word, 1)
    return pieces

class Task:
    """What the scripts need of a task. For your own (README.md has one) set `name`, `tokenizer`,
    `prompt_length` and `completion_length` (in tokens), and define `problem`, maybe `reward`."""
    n_steps = None      # the toy's number of operations; None: its forks are not known
    mask_id = property(lambda self: self.tokenizer.encode_single_token(MASK))
    eos_id = property(lambda self: self.tokenizer.eot_token)
    settings = {}       # plain values, kept in the checkpoint; load_task is the way back
    reward = staticmethod(exact_match)      # (text, answer) -> float
    rows, too_long = {}, {}     # split -> problems from a file; how many of them did not fit
    after_question = ""         # of such problems
    def problem(self, split, index):
        """-> dict of question, solution (the text to learn) and answer. split is train, validation
        or test, which must share no problem; index is any integer >= 0."""
        if not self.rows.get(split):
            raise ValueError(f"no {split} problem: name a file of them with --data (a question has "
                             f"at most {self.prompt_length} tokens)")
        return self.rows[split][index % len(self.rows[split])]
    def use_rows(self, splits):
        """Take problems from these, as read_jsonl gives them. Those that do not fit the canvas are
        left out and counted; of a test row only the question has to fit."""
        encode, self.rows, self.too_long = self.tokenizer.encode_ordinary, {}, {}
        for split, rows in splits.items():
            rows = [{**row, "question": row["question"] + self.after_question} for row in rows]
            self.rows[split] = [
                row for row in rows if len(encode(row["question"])) <= self.prompt_length
                and (split == "test" or len(encode(row["solution"])) < self.completion_length)]
            self.too_long[split] = len(rows) - len(self.rows[split])
    def describe(self):
        return json.loads(json.dumps({"name": self.name, **self.settings}))
    def size(self, split):  # number of different problems; None: they don't run out
        return len(self.rows.get(split, [])) if self.rows else None
    def problems(self, split, start, n):
        return [self.problem(split, start + i) for i in range(n)]
    def held_out(self, split, n):
        """The first n, or all there are: none of them twice, or intervals would be too narrow."""
        return self.problems(split, 0, min(n, self.size(split) or n))
    def prompts(self, questions, length=None):  # -> (B, P), padded on the left: they end together
        return self.canvas(questions, length or self.prompt_length, left=True)
    def completions(self, solutions):  # -> (B, L), padded on the right; both with end-of-text
        return self.canvas(solutions, self.completion_length, left=False)
    def canvas(self, texts, length, left):
        rows = [self.tokenizer.encode_ordinary(text) for text in texts]
        if (longest := max(map(len, rows))) > length:
            raise ValueError(f"{longest} tokens where {length} fit: shorten it, or use known words")
        pads = [[self.eos_id] * (length - len(row)) for row in rows]
        return torch.tensor([pad + row if left else row + pad for row, pad in zip(rows, pads)])
    def text(self, completion):  # token ids -> text up to the first end-of-text, without MASK
        ids = [int(i) for i in completion] + [self.eos_id]
        return self.tokenizer.decode([i for i in ids[:ids.index(self.eos_id)] if i != self.mask_id])

NAMES = ["Bob", "Ann", "Tom", "Sue", "Max", "Eva", "Sam", "Kim"]
LARGEST = 12
# "swaps all" is there against guessing: sums alone are linear, and soon done in the head.
VERBS = {"gets": ("+", range(1, 7)), "gives": ("-", range(1, 7)), "times": ("*", range(2, 4)),
         "swaps": ("~", ["all"])}
OPERATE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "~": lambda v, _: LARGEST - v}

class Toy(Task):
    name = "toy"
    def __init__(self, direct=0.65, skip=0.12, n_steps=6):
        self.direct, self.skip, self.n_steps = direct, skip, n_steps
        self.settings = {"direct": direct, "skip": skip, "n_steps": n_steps}
        self.prompt_length = 5 + 2 * n_steps   # name, has, number, of 12, (verb, number), How many?
        self.completion_length = 4 + 3 * n_steps   # number, (operand, ->, value), ####, number, end
        words = [*NAMES, " has", f" of {LARGEST}", " all", ". How many?", " ->", " ####",
                 *(f", {verb}" for verb in VERBS), *(f" {n}" for n in range(LARGEST + 1)),
                 *(f" {sign}{n}" for sign, operands in VERBS.values() for n in operands)]
        # Whole words and numbers, longest first, never half of a longer one; else one character.
        known = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        self.tokenizer = make_tokenizer([w.encode() for w in words], rf"(?:{known})(?!\w)|[\s\S]")
        token = self.tokenizer.encode_single_token
        self.arrow_id, self.hash_id = token(" ->"), token(" ####")
        self.number_ids = torch.tensor([token(f" {n}") for n in range(LARGEST + 1)])

    def problem(self, split, index):
        if self.rows:
            return super().problem(split, index)
        rng, bucket = random.Random(f"{split} {index}"), None
        while bucket not in {"test": [0], "validation": [1], "train": range(2, 10)}[split]:
            name, start = rng.choice(NAMES), rng.randint(1, LARGEST)
            story, steps, value = [], [f" {start}"], start
            for _ in range(self.n_steps):   # a verb, then an operand that keeps 0 <= value <= 12
                fits = {verb: [n for n in operands if 0 <= OPERATE[sign](value, n) <= LARGEST]
                        for verb, (sign, operands) in VERBS.items() if value or sign != "*"}
                verb = rng.choice([verb for verb in fits if fits[verb]])
                n, sign = rng.choice(fits[verb]), VERBS[verb][0]
                value = OPERATE[sign](value, n)
                story.append(f"{verb} {n}")
                steps.append(f" {sign}{n} -> {value}")
            bucket = zlib.crc32(f"{start} {story}".encode()) % 10   # so splits can't overlap
        jump = [self.direct] + [self.skip] * (self.n_steps - 1)     # to ####, at each fork
        written = next((n for n, p in enumerate(jump) if rng.random() < p), self.n_steps)
        problem = {"question": f"{name} has {start} of {LARGEST}, {', '.join(story)}. How many?",
                   "answer": str(value), "steps": steps}
        return {**problem, "solution": self.solution(problem, written)}
    def solution(self, problem, n):  # the text that writes n steps, then the answer
        return "".join(problem["steps"][:n + 1] if n else []) + f" #### {problem['answer']}"
    def is_well_formed(self, text):
        return bool(re.fullmatch(r"( \d+( ([-+*]\d|~all) -> \d+)+)? #### \d+", text))
    def fork_position(self, n):  # of the token that decides whether step n (from 0) is written
        return 3 * n + 1 if n else 0
    def forks(self, completion):
        """(B, L) tokens, however malformed -> (B, L) bool: position 0 and every position right
        after a written value, up to and including the first ####, while steps are left to write."""
        is_number = torch.isin(completion, self.number_ids.to(completion.device))
        forks = torch.zeros_like(is_number)
        forks[:, 2:] = (completion[:, :-2] == self.arrow_id) & is_number[:, 1:-1]
        end = (completion == self.hash_id) | (completion == self.eos_id)
        n_written, forks[:, 0] = forks.cumsum(1), True
        return forks & (end.cumsum(1) <= end.long()) & (n_written < self.n_steps)   # no end before

def plain(text):
    """For a terminal: what is no printable character is written out, as \\n, \\x1b or \\u202e."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)

def read_jsonl(path):
    """GSM8K's file format, one {"question", "answer"} a line -> problems. The calculator
    annotations <<48/2=24>> are removed: nothing here runs a calculator. ValueError has the line.
    No row is left out: one that can't be read, or has more than 64 kB, is an error."""
    wanted, problems = 'expected {"question": "...", "answer": "... #### 42"}', []
    if Path(path).exists() and not (Path(path).is_file() and Path(path).stat().st_size < 2**26):
        raise ValueError(f"{path} is no file, or one of 64 MB or more")
    for i, line in enumerate(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            if len(line) > 2**16:
                raise ValueError(f"a line of {len(line)} bytes")
            row = json.loads(line.decode("utf-8"))
            question, solution = row["question"], re.sub(r"<<[^<>]*>>", "", row["answer"])
            (question + solution).encode("utf-8")       # JSON can hold what is no text
            answer = extract_answer(solution)
            if not question or answer is None:
                raise ValueError("no question, or no number after ####")
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ValueError(f"{path}, line {i}: {wanted}, got {type(e).__name__}: {e}") from None
        problems.append({"question": question, "solution": solution, "answer": str(answer)})
    if not problems:
        raise ValueError(f"{path} is empty: {wanted}, one a line")
    return problems

class GSM8K(Task):
    """From local files. vocabulary: train_bpe's, in tiktoken's file format, base64(piece) rank."""
    name, after_question, rows = "gsm8k", "\n", {"test": []}

    def __init__(self, vocabulary, prompt_length, completion_length):
        self.settings = {"vocabulary": vocabulary, "prompt_length": prompt_length,
                         "completion_length": completion_length}
        self.tokenizer = make_tokenizer([base64.b64decode(line.split()[0]) for line in
                                         vocabulary.splitlines()], GSM8K_PATTERN)
        self.prompt_length, self.completion_length = prompt_length, completion_length

    @classmethod
    def from_files(cls, train, test, n_merges, prompt_length, completion_length):
        """One training row in 20, by hash, is held out; the others make the vocabulary."""
        rows, splits = read_jsonl(train), {"train": [], "validation": [], "test": read_jsonl(test)}
        if shared := {r["question"] for r in rows} & {r["question"] for r in splits["test"]}:
            raise ValueError(f"{len(shared)} questions of {test} are in {train} too: no fair test")
        # A fixed shuffle, by another hash than the split's.
        for row in sorted(rows, key=lambda row: zlib.crc32(row["question"].encode())):
            held_out = zlib.crc32(row["question"].encode(), 1) % 20 == 0
            splits["validation" if held_out else "train"].append(row)
        text = "\n".join(row["question"] + "\n" + row["solution"] for row in splits["train"])
        task = cls("\n".join(f"{base64.b64encode(p).decode()} {rank}" for rank, p in enumerate(
            train_bpe(text, n_merges), 256)), prompt_length, completion_length)
        task.use_rows(splits)
        return task

def load_task(description, test_file=None, config=None):
    """Of a checkpoint, whose network has this config; test_file: rows for its test split."""
    kinds, name = {"toy": Toy, "gsm8k": GSM8K}, str(description.get("name"))
    if name not in kinds:
        raise ValueError(f"task {name!r} is one of your own: call eval_gsm8k.evaluate in a script")
    try:
        task = kinds[name](**{k: v for k, v in description.items() if k != "name"})
        most = config.max_length if config else 2**14
        ids = task.tokenizer.n_vocab, task.mask_id, task.eos_id
        if not 0 < task.completion_length <= most - task.prompt_length or (
                config and ids != (config.vocab_size, config.mask_id, config.eos_id)):
            raise ValueError("another network's")
        task.prompts([task.problem("test", 0)["question"] if task.n_steps else "?"])
        task.completions([""])
    except Exception as error:
        raise ValueError(f"the checkpoint's task is damaged ({str(error)[:60]!r})") from None
    if test_file:
        task.use_rows({"test": read_jsonl(test_file)})
    return task
