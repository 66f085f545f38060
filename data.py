"""The task: what the model reads, and what counts as right.

The toy is GSM8K in miniature. A question tells a story about one number; a solution may write the
running value after each operation, and ends in GSM8K's own "#### N":

    Bob has 11, gives 8, gets 1, times 3, gives 2, gets 7, gives 9. How many?
    | 11 -8 -> 3 +1 -> 4 *3 -> 12 -2 -> 10 +7 -> 17 -9 -> 8 #### 8     every step written
    | #### 8                                                           the same, "in the head"

At every bar in "| 11 -8 -> 3 | +1 -> 4 | *3 ..." the text forks: it goes on with one more step, or it
jumps to "####" (with probability `direct` at the start, `skip` later). Both are correct text, and
the final number is always right; but it is easy to tell only from a solution with steps. So the
token at a fork is genuinely uncertain, everything else follows, and we know which is which.

A problem is a pure function of (split, index): no files, no state. The same Task interface reads the
real GSM8K; a task of your own needs the five names that class Task lists.
"""
import base64
import json
import random
import re
import zlib
from collections import Counter, defaultdict
from decimal import Decimal

import tiktoken
import torch

MASK, EOS = "<|mask|>", "<|endoftext|>"


# ----------------------------------------------------------------------------------------------
# answers: one extraction and one reward, for training and evaluation alike

# GSM8K's own expression is `#### (\-?[0-9\.\,]+)`, first match, commas removed, compared as text.
# We differ in three ways: 1. a dollar sign before the number is allowed; 2. a full stop or comma
# after it is not part of it; 3. answers are compared as numbers, so that 18.00 is 18.
ANSWER = re.compile(r"#### (-?)\$?(-?[0-9.,]*[0-9])", re.ASCII)


def extract_answer(text):
    """The number after the first "#### ", as a Decimal; None if there is none.

    >>> extract_answer("so 2 * 600 = 1,200 clips.\\n#### 1,200. And 7 more.")
    Decimal('1200')
    """
    match = ANSWER.search(text)
    number = "".join(match.groups()).replace(",", "") if match else ""
    return Decimal(number) if re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)", number) else None


def exact_match(text, answer):
    """1.0 if the text's answer is this number (a string), else 0.0. The reward, and the accuracy."""
    found = extract_answer(text)
    return float(found is not None and found == Decimal(answer))


# ----------------------------------------------------------------------------------------------
# tokenizers: tiktoken, built in memory (its get_encoding() would download)

def make_tokenizer(pieces, pattern):
    """The 256 single bytes, then `pieces` (bytes, in merge order), then MASK and end-of-text.
    `pattern` splits a text into words; a word that is a piece becomes one token."""
    ranks = {bytes([i]): i for i in range(256)}
    for piece in pieces:
        ranks.setdefault(piece, len(ranks))
    special = {MASK: len(ranks), EOS: len(ranks) + 1}
    return tiktoken.Encoding("flexibility-trap", pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens=special)


def toy_tokenizer():
    """Whole words, numbers and signed operands as single tokens; anything else falls to bytes."""
    words = NAMES + [" has"] + [f", {verb}" for verb in VERBS] + [". How many?", " ->", " ####"]
    words += [f" {n}" for n in range(LARGEST + 1)]
    words += [f" {sign}{n}" for sign, operands in VERBS.values() for n in operands]
    # Longest first, and never half of a longer number or word; then one character at a time.
    known = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
    return make_tokenizer([w.encode() for w in words], rf"(?:{known})(?!\w)|[\s\S]")


# One digit a token (as LLaDA's peers do for arithmetic), words with their space, and every other
# character somewhere: tiktoken drops without a word what its pattern does not match.
GSM8K_PATTERN = r"\d| ?[^\W\d_]+| ?(?:[^\w\s]|_)+|\s+"


def train_bpe(text, n_merges, pattern=GSM8K_PATTERN):
    """Byte-pair encoding (Sennrich et al. 2016): n_merges times, fuse the most frequent adjacent
    pair. -> the fused pieces in order. Counts are kept per distinct word and updated only for the
    words that a merge touches, which is what makes 4 MB a matter of seconds."""
    words = [([bytes([b]) for b in w.encode()], n) for w, n in Counter(re.findall(pattern, text)).items()]
    counts, places = Counter(), defaultdict(set)
    for i, (parts, n) in enumerate(words):
        for pair in zip(parts, parts[1:]):
            counts[pair] += n
            places[pair].add(i)
    pieces = []
    while len(pieces) < n_merges and counts:
        best = max(counts, key=lambda pair: (counts[pair], pair))   # ties: a fixed order
        if counts[best] < 2:
            break
        pieces.append(best[0] + best[1])
        for i in places.pop(best):
            parts, n = words[i]
            for pair in zip(parts, parts[1:]):
                counts[pair] -= n
            merged = []
            for part in parts:      # left to right, so "aaa" becomes "aa", "a"
                if merged and (merged[-1], part) == best:
                    merged[-1] += part
                    part = None
                if part:
                    merged.append(part)
            words[i] = (merged, n)
            for pair in zip(merged, merged[1:]):
                counts[pair] += n
                places[pair].add(i)
        del counts[best]
    return pieces


# ----------------------------------------------------------------------------------------------
# tasks

class Task:
    """What every script needs of a task. For your own, subclass it: set `name`, `tokenizer`,
    `prompt_length` and `completion_length` (in tokens), and define `problem`. README.md has an
    example. Override `reward` if exact match of "#### N" is not what you want."""

    n_steps = None      # the toy's number of operations; None: which tokens are forks is not known

    def problem(self, split, index):
        """-> dict with question, solution (the text to learn) and answer. split: train,
        validation or test, which must never share a problem; index: any integer >= 0."""
        raise NotImplementedError

    def size(self, split):
        """Number of different problems, or None where they don't run out."""
        return None

    def reward(self, text, answer):
        return exact_match(text, answer)

    def describe(self):
        """Plain values for the checkpoint; load_task is the way back."""
        return {"name": self.name}

    @property
    def mask_id(self):
        return self.tokenizer.encode_single_token(MASK)

    @property
    def eos_id(self):
        return self.tokenizer.eot_token

    def problems(self, split, start, n):
        return [self.problem(split, start + i) for i in range(n)]

    def prompts(self, questions, length=None):
        """Questions (B strings) -> (B, P), end-of-text on the left, so that questions all end at
        the same place. Raises ValueError if one is longer than `length` (default: prompt_length)."""
        length = length or self.prompt_length
        rows = [self.tokenizer.encode_ordinary(q) for q in questions]
        longest = max(len(row) for row in rows)
        if longest > length:
            raise ValueError(f"the prompt has {longest} tokens; at most {length} fit. Shorten it, or "
                             "use the task's own words (others cost a token a letter)")
        return torch.tensor([[self.eos_id] * (length - len(row)) + row for row in rows])

    def completions(self, solutions):
        """Solutions (B strings) -> (B, L), end-of-text on the right. Raises ValueError if too long."""
        rows = [self.tokenizer.encode_ordinary(s) for s in solutions]
        length = self.completion_length
        if max(len(row) for row in rows) > length:
            raise ValueError(f"a solution is longer than {length} tokens")
        return torch.tensor([row + [self.eos_id] * (length - len(row)) for row in rows])

    def text(self, completion):
        """Token ids of one completion -> its text up to the first end-of-text, without MASK."""
        ids = [int(i) for i in completion]
        ids = ids[:ids.index(self.eos_id)] if self.eos_id in ids else ids
        return self.tokenizer.decode([i for i in ids if i != self.mask_id])


NAMES = ["Bob", "Ann", "Tom", "Sue", "Max", "Eva", "Sam", "Kim"]
VERBS = {"gets": ("+", range(1, 10)), "gives": ("-", range(1, 10)), "times": ("*", range(2, 4))}
LARGEST = 20


def operate(value, sign, operand):
    return value + operand if sign == "+" else value - operand if sign == "-" else value * operand


class Toy(Task):
    name = "toy"
    n_steps = 6
    prompt_length = 16      # name, has, number, 6 x (verb, number), How many?
    completion_length = 22  # number, 6 x (operand, ->, value), ####, number, end-of-text

    def __init__(self, direct=0.5, skip=0.12):
        self.direct, self.skip = direct, skip
        self.tokenizer = toy_tokenizer()
        self.arrow_id, self.hash_id = (self.tokenizer.encode_single_token(w) for w in (" ->", " ####"))
        self.number_ids = [self.tokenizer.encode_single_token(f" {n}") for n in range(LARGEST + 1)]

    def describe(self):
        return {"name": self.name, "direct": self.direct, "skip": self.skip}

    def problem(self, split, index):
        rng = random.Random(f"{split} {index}")
        while True:
            name, start = rng.choice(NAMES), rng.randint(1, LARGEST)
            story, steps, value = [], [], start
            for _ in range(self.n_steps):
                # A verb first, then one of its operands that keeps the value within 0..20.
                options = {verb: fit for verb, (sign, operands) in VERBS.items()
                           if (fit := [n for n in operands
                                       if 0 <= operate(value, sign, n) <= LARGEST and value > 0
                                       or value == 0 and sign == "+"])}
                verb = rng.choice(list(options))
                operand, sign = rng.choice(options[verb]), VERBS[verb][0]
                value = operate(value, sign, operand)
                story.append(f"{verb} {operand}")
                steps.append((f"{sign}{operand}", value))
            # The story's hash decides its split, whoever asks: the splits can't overlap.
            bucket = zlib.crc32(f"{start} {story}".encode()) % 10
            if {0: "test", 1: "validation"}.get(bucket, "train") == split:
                break
        problem = {"question": f"{name} has {start}, {', '.join(story)}. How many?",
                   "answer": str(value), "start": start, "steps": steps}
        n = 0       # steps written before the jump to ####
        while n < self.n_steps and rng.random() >= (self.skip if n else self.direct):
            n += 1
        return {**problem, "solution": self.solution(problem, n)}

    def solution(self, problem, n):
        """The solution that writes n steps, then answers."""
        steps = "".join(f" {operand} -> {value}" for operand, value in problem["steps"][:n])
        return (f" {problem['start']}{steps}" if n else "") + f" #### {problem['answer']}"

    def is_well_formed(self, text):
        return bool(re.fullmatch(r"( \d+( [-+*]\d -> \d+)+)? #### \d+", text))

    def fork_position(self, n):
        """Where the token stands that decides whether step n (0-based) is written."""
        return 3 * n + 1 if n else 0

    def forks(self, completion):
        """(B, L) tokens, however malformed -> (B, L) bool: position 0 and every position right after
        a written value, up to and including the first ####, while steps are left to write."""
        is_number = torch.isin(completion, torch.tensor(self.number_ids, device=completion.device))
        follows = torch.zeros_like(is_number)       # right after "-> number"
        follows[:, 2:] = (completion[:, :-2] == self.arrow_id) & is_number[:, 1:-1]
        written = follows.long().cumsum(1)          # steps before this position
        end = (completion == self.hash_id) | (completion == self.eos_id)
        ended = (end.long().cumsum(1) - end.long()) > 0     # an end stands before this position
        follows[:, 0] = True
        return follows & ~ended & (written < self.n_steps)


def read_jsonl(path):
    """GSM8K's file format, one {"question", "answer"} a line -> list of problems. The calculator
    annotations <<48/2=24>> are removed: nothing here runs a calculator.

    Raises OSError, or ValueError naming file and line."""
    with open(path, "rb") as f:
        lines = f.read().splitlines()
    problems = []
    for i, line in enumerate(lines, 1):
        expected = f'{path}, line {i}: expected {{"question": "...", "answer": "... #### 42"}}'
        try:
            row = json.loads(line.decode("utf-8"))
            question, solution = row["question"], re.sub(r"<<[^<>]*>>", "", row["answer"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{expected}, found {type(error).__name__}: {error}") from None
        answer = extract_answer(solution)
        if not isinstance(question, str) or not question or answer is None:
            raise ValueError(f"{expected}, found no question or no number after ####")
        problems.append({"question": question + "\n", "solution": solution, "answer": str(answer)})
    if not problems:
        raise ValueError(f'{path} is empty; expected one {{"question", "answer"}} a line')
    return problems


class GSM8K(Task):
    """The real thing, from local files. `splits`: name -> list of problems (read_jsonl). Rows that do
    not fit are left out and counted in `too_long`."""
    name = "gsm8k"

    def __init__(self, splits, pieces, prompt_length, completion_length):
        self.tokenizer = make_tokenizer(pieces, GSM8K_PATTERN)
        self.pieces = pieces
        self.prompt_length, self.completion_length = prompt_length, completion_length
        self.splits, self.too_long = {}, {}
        for split, rows in splits.items():
            self.splits[split] = [row for row in rows if self.fits(row, split)]
            self.too_long[split] = len(rows) - len(self.splits[split])

    def fits(self, row, split):
        def length(text):
            return len(self.tokenizer.encode_ordinary(text))
        # A test row's solution is never read, only its answer: its length does not matter.
        return length(row["question"]) <= self.prompt_length and (
            split == "test" or length(row["solution"]) < self.completion_length)

    @classmethod
    def from_files(cls, train, test, n_merges, prompt_length, completion_length):
        """Learns the vocabulary from the training rows; holds one row in 20 out for validation, by
        the hash of its question; refuses test rows that stand in the training file."""
        rows, test_rows = read_jsonl(train), read_jsonl(test)
        splits = {"train": [], "validation": [], "test": test_rows}
        for row in sorted(rows, key=lambda r: zlib.crc32(r["question"].encode())):  # a fixed shuffle
            bucket = zlib.crc32(row["question"].encode(), 1) % 20
            splits["train" if bucket else "validation"].append(row)
        shared = {r["question"] for r in rows} & {r["question"] for r in test_rows}
        if shared:
            raise ValueError(f"{len(shared)} questions of {test} stand in {train} too; "
                             "a test that was trained on measures nothing")
        text = "".join(r["question"] + r["solution"] for r in splits["train"])
        return cls(splits, train_bpe(text, n_merges), prompt_length, completion_length)

    def describe(self):
        # tiktoken's own file format, without the single bytes: base64(piece) rank
        lines = (f"{base64.b64encode(p).decode()} {256 + i}" for i, p in enumerate(self.pieces))
        return {"name": self.name, "vocabulary": "\n".join(lines), "prompt_length":
                self.prompt_length, "completion_length": self.completion_length}

    def problem(self, split, index):
        rows = self.splits.get(split)
        if not rows:
            raise ValueError(f"no {split} problems here: name a GSM8K file with --data")
        return rows[index % len(rows)]

    def size(self, split):
        return len(self.splits.get(split, []))


def load_task(description, test_file=None):
    """The task that a checkpoint was trained on. test_file: GSM8K rows to use as its test split."""
    if description["name"] == "gsm8k":
        vocabulary = description["vocabulary"].splitlines()
        pieces = [base64.b64decode(line.split()[0]) for line in vocabulary]
        splits = {"test": read_jsonl(test_file)} if test_file else {}
        return GSM8K(splits, pieces, description["prompt_length"], description["completion_length"])
    if description["name"] != "toy":
        raise ValueError(f"this checkpoint's task is {description['name']!r}, a task of your own: "
                         "pass it to the functions of sample.py and eval_gsm8k.py from your script")
    task = Toy(description["direct"], description["skip"])
    if test_file:   # the toy's model on real text: it has no words for it, but bytes do
        rows = read_jsonl(test_file)
        task.problem = lambda split, index: rows[index % len(rows)]
        task.size = lambda split: len(rows)
    return task
