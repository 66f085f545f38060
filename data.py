"""The task: what the model reads, and what counts as right.

The toy is GSM8K in miniature. A question tells a story about one number; a solution may
write the running value after each operation, and ends in GSM8K's own "#### N":

    Bob has 8 of 12, gives 5, gets 1, times 3, swaps all, gets 6, gives 1. How many?
    | 8 -5 -> 3| +1 -> 4| *3 -> 12| ~all -> 0| +6 -> 6| -1 -> 5 #### 5   every step written
    | #### 5                                                            "in the head"

At every bar the text *forks*: one more step, or a jump to "####" (with probability
`direct` at the start, `skip` later). Both are right, but only writing every step makes
it easy to be right. So the token at a fork is truly uncertain, all else follows, and we
know which is which.
"""
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

# ----------------------------------------------------------------------------------------
# the answer and the reward

# GSM8K's own is `#### (\-?[0-9\.\,]+)`: first match, commas removed, compared as text.
# Here a dollar sign may stand before it, a full stop or comma after it is not part of
# it, and 18.00 is 18.
ANSWER = re.compile(r"#### (-?)\$?(-?[0-9.,]*[0-9])")


def extract_answer(text):
    """The number after the first "#### " that has one, as a Decimal; else None."""
    match = ANSWER.search(text)
    if not match:
        return None
    number = "".join(match.groups()).replace(",", "")
    if not re.fullmatch(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)", number):
        return None
    return Decimal(number)


def exact_match(text, answer):
    """1.0 if the text's answer is this number (a string), else 0.0."""
    return float(extract_answer(text) == Decimal(answer))

# ----------------------------------------------------------------------------------------
# tokenizers: tiktoken's, built in memory (its get_encoding would download)


def make_tokenizer(pieces, pattern):
    """A tiktoken encoding: the 256 bytes, `pieces` (bytes, in merge order), MASK, EOS.

    pattern, a regular expression, cuts a text into words; a word that is a piece is one
    token. It must match every character: tiktoken drops what it does not.
    """
    # Each once, in order; with all single bytes any text can be encoded.
    every = dict.fromkeys([bytes([b]) for b in range(256)] + pieces)
    ranks = {piece: rank for rank, piece in enumerate(every)}
    return tiktoken.Encoding("flexibility-trap", pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens={MASK: len(ranks), EOS: len(ranks) + 1})


# Each digit alone, words with their space before, all else somewhere.
GSM8K_PATTERN = r"\d| ?[^\W\d_]+| ?(?:[^\w\s]|_)+|\s+"


def train_bpe(text, n_merges, pattern=GSM8K_PATTERN):
    """Byte-pair encoding (Sennrich et al. 2016): the fused pieces, in order.

    n_merges times, the most frequent pair of neighbours becomes one piece. Only the
    words that a merge touches are counted again. Words of 100 characters and more would
    take hours and are left out.
    """
    words = Counter(word for word in re.findall(pattern, text) if len(word) < 100)
    parts = {word: [bytes([b]) for b in word.encode()] for word in words}
    counts = Counter()              # of each pair of neighbours
    places = defaultdict(set)       # the words that hold it
    pieces = []

    def count(word, sign):
        for pair in zip(parts[word], parts[word][1:]):
            counts[pair] += sign * words[word]
            places[pair].add(word)

    for word in words:
        count(word, 1)
    while len(pieces) < n_merges:
        # Ties are broken by the bytes, so that the order is always the same.
        best = max(counts, key=lambda pair: (counts[pair], pair), default=None)
        if counts[best] < 2:
            break
        pieces.append(best[0] + best[1])
        for word in places.pop(best):
            count(word, -1)
            parts[word] = fuse(parts[word], best)
            count(word, 1)
    return pieces


def fuse(parts, pair):
    """Join this pair wherever it stands, left to right: "aaa" becomes "aa", "a"."""
    fused = parts[:1]
    for part in parts[1:]:
        if (fused[-1], part) == pair:
            fused[-1] += part
        else:
            fused.append(part)
    return fused

# ----------------------------------------------------------------------------------------
# what a task is


class Task:
    """What the scripts need of a task. README.md has one of ten lines.

    A task of your own sets `name`, `tokenizer`, and the canvas, `prompt_length` and
    `completion_length` (in tokens), and defines `problem`. It may define `reward`, and
    `size` if its problems run out.

    A task whose forks are known sets `n_steps`, the number of steps that a solution may
    write, and defines what stands below "known forks"; without it, what needs known forks
    is left out of the run.
    """
    name = None
    tokenizer = None            # see make_tokenizer
    prompt_length = None        # P
    completion_length = None    # L
    settings = {}               # plain values that make this task again
    after_question = ""         # what ends a question that comes from a file
    rows = {}                   # split -> problems from a file
    too_long = {}               # split -> how many of the file's did not fit

    def problem(self, split, index):
        """A dict of question, solution (the text to learn) and answer, a string each.

        split is train, validation or test, which must share no problem; index is any
        integer >= 0. Raises ValueError where there is none.
        """
        rows = self.rows.get(split)
        if not rows:
            raise ValueError(f"no {split} problem: name a file of them with --data (a "
                             f"question has at most {self.prompt_length} tokens)")
        return rows[index % len(rows)]

    def reward(self, text, answer):
        """1.0 if a completion's text is right, else 0.0: RL's reward and the accuracy."""
        return exact_match(text, answer)

    def size(self, split):
        """The number of different problems; None: they don't run out."""
        return len(self.rows.get(split, [])) if self.rows else None

    # -- known forks (see Toy, which has them)

    n_steps = None      # None: where a text may fork is not known

    def solution(self, problem, n):
        """The text that writes n of the n_steps steps, then the answer."""
        raise NotImplementedError

    def fork_position(self, n):
        """Where, in tokens, it is decided whether step n (from 0) is written."""
        raise NotImplementedError

    def true_go_on(self):
        """For each fork, how often the task's own solutions write the next step."""
        raise NotImplementedError

    def goes_on(self, p):
        """p (Q, V), distributions at a fork -> (Q,), the probability of the next step."""
        raise NotImplementedError

    def forks(self, completion):
        """(B, L) tokens, of whatever text -> (B, L) bool: where it is at a fork."""
        raise NotImplementedError

    def is_well_formed(self, text):
        """Whether a text has the form of a solution, right or wrong."""
        raise NotImplementedError

    # -- the same for every task

    @property
    def mask_id(self):
        return self.tokenizer.encode_single_token(MASK)

    @property
    def eos_id(self):
        return self.tokenizer.eot_token

    def describe(self):
        """Plain values, kept in a checkpoint: sample.load_task is the way back."""
        return json.loads(json.dumps({"name": self.name, **self.settings}))

    def problems(self, split, start, n):
        return [self.problem(split, start + i) for i in range(n)]

    def held_out(self, split, n):
        """The first n, or all there are: none twice, or intervals would be too narrow."""
        return self.problems(split, 0, min(n, self.size(split) or n))

    def use_rows(self, splits):
        """Take problems from these lists, as read_jsonl gives them.

        Those that do not fit the canvas are left out and counted in too_long; of a test
        row only the question has to fit.
        """
        self.rows = {}
        self.too_long = {}
        for split, rows in splits.items():
            rows = [{**row, "question": row["question"] + self.after_question}
                    for row in rows]
            self.rows[split] = [row for row in rows if self.fits(row, split)]
            self.too_long[split] = len(rows) - len(self.rows[split])

    def fits(self, row, split):
        encode = self.tokenizer.encode_ordinary
        if len(encode(row["question"])) > self.prompt_length:
            return False
        return split == "test" or len(encode(row["solution"])) < self.completion_length

    def prompts(self, questions, length=None):
        """Token ids (B, P), padded on the left with end-of-text: they end together."""
        return self.canvas(questions, length or self.prompt_length, left=True)

    def completions(self, solutions):
        """Token ids (B, L), padded on the right with end-of-text."""
        return self.canvas(solutions, self.completion_length, left=False)

    def canvas(self, texts, length, left):
        rows = [self.tokenizer.encode_ordinary(text) for text in texts]
        longest = max(len(row) for row in rows)
        if longest > length:
            raise ValueError(
                f"{longest} tokens where {length} fit: shorten it, or use known words")
        pads = [[self.eos_id] * (length - len(row)) for row in rows]
        if left:
            return torch.tensor([pad + row for pad, row in zip(pads, rows)])
        return torch.tensor([row + pad for pad, row in zip(pads, rows)])

    def text(self, completion):
        """Token ids (L,) -> the text before the first end-of-text, without MASK."""
        ids = [int(i) for i in completion] + [self.eos_id]
        ids = ids[:ids.index(self.eos_id)]
        return self.tokenizer.decode([i for i in ids if i != self.mask_id])

# ----------------------------------------------------------------------------------------
# the toy

NAMES = ["Bob", "Ann", "Tom", "Sue", "Max", "Eva", "Sam", "Kim"]
LARGEST = 12
# verb: (sign, operands). "swaps all" is there against guessing: sums alone are linear,
# and soon done in the head.
VERBS = {"gets": ("+", range(1, 7)), "gives": ("-", range(1, 7)),
         "times": ("*", range(2, 4)), "swaps": ("~", ["all"])}


def operate(sign, value, operand):
    if sign == "+":
        return value + operand
    if sign == "-":
        return value - operand
    if sign == "*":
        return value * operand
    return LARGEST - value


class Toy(Task):
    name = "toy"

    def __init__(self, direct=0.65, skip=0.12, n_steps=6):
        if n_steps > 1000:      # a forged checkpoint could ask for a list of any size
            raise ValueError(f"n_steps is {n_steps}; it is at most 1000")
        self.n_steps = n_steps
        # How often a solution jumps to its answer: at once, and at each later fork.
        self.jumps = [direct] + [skip] * (n_steps - 1)
        self.settings = {"direct": direct, "skip": skip, "n_steps": n_steps}
        # Bob, has, 8, of 12, (verb, operand) a step, How many?
        self.prompt_length = 5 + 2 * n_steps
        # 8, (signed operand, ->, value) a step, ####, answer, end-of-text
        self.completion_length = 4 + 3 * n_steps
        words = [*NAMES, " has", f" of {LARGEST}", " all", ". How many?", " ->", " ####"]
        words += [f", {verb}" for verb in VERBS]
        words += [f" {number}" for number in range(LARGEST + 1)]
        words += [f" {sign}{operand}" for sign, operands in VERBS.values()
                  for operand in operands]
        # Whole words and numbers, longest first, never half of a longer one; else one
        # character.
        known = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        pattern = rf"(?:{known})(?!\w)|[\s\S]"
        self.tokenizer = make_tokenizer([word.encode() for word in words], pattern)
        token = self.tokenizer.encode_single_token
        self.arrow_id = token(" ->")
        self.hash_id = token(" ####")
        self.number_ids = torch.tensor([token(f" {n}") for n in range(LARGEST + 1)])

    def problem(self, split, index):
        """See Task; and `steps`, the text of each: " 8", " -5 -> 3", " +1 -> 4", ..."""
        if self.rows:
            return super().problem(split, index)
        # A tenth of all stories is for testing, a tenth for validation.
        buckets = {"test": [0], "validation": [1], "train": range(2, 10)}[split]
        rng = random.Random(f"{split} {index}")
        bucket = None
        while bucket not in buckets:        # a story's hash is its split: none is in two
            name, start, story, steps, value = self.draw_story(rng)
            bucket = zlib.crc32(f"{start} {story}".encode()) % 10
        n_written = self.n_steps
        for n, jump in enumerate(self.jumps):
            if rng.random() < jump:
                n_written = n
                break
        question = f"{name} has {start} of {LARGEST}, {', '.join(story)}. How many?"
        problem = {"question": question, "answer": str(value), "steps": steps}
        problem["solution"] = self.solution(problem, n_written)
        return problem

    def draw_story(self, rng):
        """n_steps operations, each of which keeps 0 <= value <= LARGEST."""
        name = rng.choice(NAMES)
        start = value = rng.randint(1, LARGEST)
        story, steps = [], [f" {start}"]
        for _ in range(self.n_steps):
            fits = {}
            for verb, (sign, operands) in VERBS.items():
                fits[verb] = [n for n in operands
                              if 0 <= operate(sign, value, n) <= LARGEST]
                if sign == "*" and value == 0:      # three times nothing is no news
                    fits[verb] = []
            verb = rng.choice([verb for verb in fits if fits[verb]])
            operand = rng.choice(fits[verb])
            sign = VERBS[verb][0]
            value = operate(sign, value, operand)
            story.append(f"{verb} {operand}")
            steps.append(f" {sign}{operand} -> {value}")
        return name, start, story, steps, value

    def solution(self, problem, n):
        written = problem["steps"][:n + 1] if n else []
        return "".join(written) + f" #### {problem['answer']}"

    def fork_position(self, n):
        return 3 * n + 1 if n else 0    # after the start value and n times sign, ->, value

    def true_go_on(self):
        return [1 - jump for jump in self.jumps]

    def goes_on(self, p):
        return 1 - p[:, self.hash_id]

    def forks(self, completion):
        """Position 0 and every position right after a written value, up to and
        including the first ####, while steps are left to write."""
        is_number = torch.isin(completion, self.number_ids.to(completion.device))
        forks = torch.zeros_like(is_number)
        forks[:, 2:] = (completion[:, :-2] == self.arrow_id) & is_number[:, 1:-1]
        n_written = forks.cumsum(1)
        forks[:, 0] = True      # after n_written: no step stands before it
        ends = (completion == self.hash_id) | (completion == self.eos_id)
        none_before = ends.cumsum(1) <= ends.long()
        return forks & none_before & (n_written < self.n_steps)

    def is_well_formed(self, text):
        return bool(re.fullmatch(r"( \d+( ([-+*]\d|~all) -> \d+)+)? #### \d+", text))

# ----------------------------------------------------------------------------------------
# GSM8K, from its files


def read_jsonl(path):
    """GSM8K's file format, one {"question", "answer"} a line -> problems.

    The calculator annotations <<48/2=24>> are removed: nothing here runs a calculator.
    No row is left out: ValueError names the line that can't be read, or has more than
    64 kB.
    """
    wanted = 'expected {"question": "...", "answer": "... #### 42"}'
    path = Path(path)
    if path.exists() and not (path.is_file() and path.stat().st_size < 2**26):
        raise ValueError(f"{path} is no file, or one of 64 MB or more")
    problems = []
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            problems.append(parse_row(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {wanted}, got "
                             f"{type(error).__name__}: {error}") from None
    if not problems:
        raise ValueError(f"{path} is empty: {wanted}, one a line")
    return problems


def parse_row(line):
    if len(line) > 2**16:
        raise ValueError(f"a line of {len(line)} bytes")
    row = json.loads(line.decode("utf-8"))
    question, solution = row["question"], re.sub(r"<<[^<>]*>>", "", row["answer"])
    (question + solution).encode("utf-8")       # JSON can hold what is no text
    answer = extract_answer(solution)
    if not question or answer is None:
        raise ValueError("no question, or no number after ####")
    return {"question": question, "solution": solution, "answer": str(answer)}


class GSM8K(Task):
    """From local files; vocabulary: of train_bpe, in tiktoken's file format."""
    name = "gsm8k"
    after_question = "\n"
    rows = {"test": []}     # there are problems only if there are files

    def __init__(self, vocabulary, prompt_length, completion_length):
        self.settings = {"vocabulary": vocabulary, "prompt_length": prompt_length,
                         "completion_length": completion_length}
        pieces = [base64.b64decode(line.split()[0]) for line in vocabulary.splitlines()]
        self.tokenizer = make_tokenizer(pieces, GSM8K_PATTERN)
        self.prompt_length = prompt_length
        self.completion_length = completion_length

    @classmethod
    def from_files(cls, train, test, n_merges, prompt_length, completion_length):
        """One training row in 20, by hash, is held out; the others make the vocabulary.

        Raises ValueError if a test question is among the training rows.
        """
        rows = read_jsonl(train)
        splits = {"train": [], "validation": [], "test": read_jsonl(test)}
        shared = {r["question"] for r in rows} & {r["question"] for r in splits["test"]}
        if shared:
            raise ValueError(
                f"{len(shared)} questions of {test} are in {train} too: no fair test")
        # A fixed shuffle, by another hash than the split's.
        rows.sort(key=lambda row: zlib.crc32(row["question"].encode()))
        for row in rows:
            is_held_out = zlib.crc32(row["question"].encode(), 1) % 20 == 0
            splits["validation" if is_held_out else "train"].append(row)
        text = "\n".join(row["question"] + "\n" + row["solution"]
                         for row in splits["train"])
        pieces = train_bpe(text, n_merges)
        # tiktoken's file format: base64(piece) rank
        lines = [f"{base64.b64encode(piece).decode()} {rank}"
                 for rank, piece in enumerate(pieces, 256)]
        task = cls("\n".join(lines), prompt_length, completion_length)
        task.use_rows(splits)
        return task

# ----------------------------------------------------------------------------------------

# What a checkpoint's description stands for: TASKS[name](**settings) is the way back.
TASKS = {"toy": Toy, "gsm8k": GSM8K}
