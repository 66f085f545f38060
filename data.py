"""The task: what the model reads, and what counts as right.

The toy is GSM8K in miniature. A question tells a story about one number; its worksheet
has a line for the value after each operation, and ends in GSM8K's own "#### N":

    Bob has 9 of 30, swaps all, gets 4, swaps all, swaps all, gets 3, gives 5. How many?
    | 9 ~all -> 21| +4 -> 25| ~all -> 5| ~all -> 25| +3 -> 28| -5 -> 23 #### 23
    | -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- -- #### 23

Both sheets are right: Bob mostly shows his work, Kim mostly leaves it blank and does it
in her head. At every bar the text *forks*: one more line is written, or the rest is left
blank. Who does what is a habit, known from the name, and only written lines make the
answer easy. So the token at a fork is truly uncertain, all else follows, and we know
which is which. All sheets have one length, so nothing but the forks has to be decided.
"""
import base64
import json
import math
import random
import re
import zlib
from collections import Counter, defaultdict
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from numbers import Integral, Number
from pathlib import Path

import tiktoken
import torch

MASK, EOS = "<|mask|>", "<|endoftext|>"
SPLITS = "train", "validation", "test"

# ----------------------------------------------------------------------------------------
# the answer, and what is right

NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
PLAIN = re.compile(f"-?{NUMBER}")
ANSWER = re.compile(
    r"#### (?=[-$]*[.,]*[0-9])"             # the first that begins like a number decides
    rf"(?:(-\$|\$-|[-$]?)({NUMBER})"        # whether it is one
    r"""(?=\s|\Z|[.,;:!?)\]"'](?:\s|\Z)|[%$€£°]))?""")      # and ends there

# GSM8K's own: first match, commas removed, compared as text. Where it departs from ours:
#
#     #### 18.00, #### 018        18      18.00, 018, and so not 18
#     #### $18, #### -$18         18, -18     nothing
#     #### 18. (end of sentence)  18      18., and so not 18
#     #### 9e9, 1/2, 3:45, 7th    nothing     9, 1, 3, 7
#     #### 12,5, 1,2,3            nothing     125, 123
#     #### 9{,}500, 10^3          nothing     9, 10
#     #### 2 2/3, 5 000           2, 5        2, 5 (a space ends it for both)
#     #### ... #### 5             5       ...
OFFICIAL = re.compile(r"#### (\-?[0-9\.\,]+)")


def extract_answer(text):
    """The number after the first "#### " that has one, as a Decimal; None without one, or
    if it does not end as a number does."""
    match = ANSWER.search(text)
    if not match or not match[2]:
        return None
    sign = "-" if "-" in match[1] else ""
    return Decimal(sign + match[2].replace(",", ""))


def exact_match(text, answer):
    """Whether the text's answer is this number (a text or a number). Raises ValueError
    if that is none."""
    try:
        gold = answer if isinstance(answer, Fraction) else Decimal(str(answer))
        return extract_answer(text) == gold
    except InvalidOperation:
        raise ValueError(f"the answer {short(answer)} is no number: say what is right with "
                         "an is_right of your own") from None


def official_match(text, solution):
    """Whether a text's answer is a solution's by GSM8K's own expression."""
    found, gold = OFFICIAL.search(text), OFFICIAL.search(solution)
    if not found or not gold:
        return False
    return found[1].replace(",", "") == gold[1].replace(",", "")

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
    `completion_length` (in tokens), and defines `problem`. It may define `is_right`,
    `reward`, and `size` if its problems run out. It is tried before any work (try_task).

    A task whose forks are known sets `n_lines`, the number of lines that a solution may
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
    repeated = {}               # split -> lines of the file that say again what is there
    has_hashes = True           # a solution ends in GSM8K's "#### N"
    is_padded = True            # prompts are brought to one length, prompt_length

    def problem(self, split, index):
        """A dict of question, solution (the text to learn; both are texts) and answer (a
        text or a number).

        split is train, validation or test, which must share no problem. index is any
        integer >= 0; training goes beyond the last, to begin again. Raises ValueError
        where there is none.
        """
        rows = self.rows.get(split)
        if rows:
            return rows[index % len(rows)]
        if self.too_long.get(split):
            raise ValueError(
                f"none of the {self.too_long[split]} {split} rows fits the task: a question "
                f"has at most {self.prompt_length} tokens, a solution "
                f"{self.completion_length - 1}")
        raise ValueError(f"no {split} problem: name a file of them with --data; sample.py "
                         "also takes a --prompt")

    def is_right(self, text, answer):
        """Whether a completion's text is right: all accuracies, pass@k, a verdict."""
        return exact_match(text, answer)

    def reward(self, text, answer):
        """What RL pays for a text, a finite number."""
        return float(self.is_right(text, answer))

    def judged_text(self, text, problem):
        """What an evaluation judges for a completion's text: that, unless a protocol looks
        at more."""
        return text

    def extracted(self, text):
        """The answer in a text, as a text; None without one."""
        found = extract_answer(text)
        return None if found is None else str(found)

    def size(self, split):
        """The number of different problems; None: they don't run out."""
        return len(self.rows.get(split, [])) if self.rows else None

    # -- known forks (see Worksheet, which has them)

    n_lines = None      # None: where a text may fork is not known
    kinds = ()          # of problems, which fork at different rates
    end_id = None       # the token at a fork from which no further line is written
    sheet_length = None     # what stands from here on stands there in every text

    def solution(self, problem, n):
        """The text that writes n of the n_lines lines, then the answer."""
        raise NotImplementedError

    def kind(self, problem):
        """Which of the kinds it is."""
        raise NotImplementedError

    def is_derived(self, text, problem):
        """Whether a text is the problem's one worked solution, which nobody guesses."""
        raise NotImplementedError

    def fork_position(self, n):
        """Where, in tokens, it is decided whether line n (from 0) is written."""
        raise NotImplementedError

    def answer_position(self, n):
        """Where the answer's first token stands after n lines."""
        raise NotImplementedError

    def true_go_on(self):
        """{kind: for each fork, how often its solutions write the next line}."""
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
        problems = self.problems(split, 0, min(n, self.size(split) or n))
        return without_copies(problems)[0]

    def use_rows(self, splits):
        """Take problems from these lists, as read_jsonl gives them.

        Those that do not fit the canvas are left out and counted in too_long; of a test
        row only the question has to fit. What is evaluated stands there once: its copies
        are left out, too, and their lines are kept in `repeated`.
        """
        self.rows, self.too_long, self.repeated = {}, {}, {}
        for split, rows in splits.items():
            rows = [{**row, "question": row["question"] + self.after_question}
                    for row in rows]
            if split != "train":
                rows, self.repeated[split] = without_copies(rows)
            self.rows[split] = [row for row in rows if self.fits(row, split)]
            self.too_long[split] = len(rows) - len(self.rows[split])

    def left_out(self, split, rows="rows"):
        """What use_rows has left out, in words; rows: what they are called."""
        found = []
        if self.too_long.get(split):
            found.append(f"{self.too_long[split]} {rows} are too long for this canvas and "
                         "left out")
        lines = self.repeated.get(split)
        if lines:
            named = ", ".join(map(str, lines[:20])) + (", ..." if lines[20:] else "")
            found.append(f"{len(lines)} {rows} are repeated and evaluated once: lines {named}")
        return found

    def fits(self, row, split):
        encode = self.tokenizer.encode_ordinary
        if len(encode(row["question"])) > self.prompt_length:
            return False
        return split == "test" or len(encode(row["solution"])) < self.completion_length

    @property
    def n_vocab(self):
        return self.tokenizer.n_vocab

    def length_of(self, question):
        """How many tokens its prompt has."""
        return self.prompt_length

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
        rows = [pad + row if left else row + pad for pad, row in zip(pads, rows)]
        return torch.tensor(rows, dtype=torch.long)     # (of nothing, torch makes floats)

    def text(self, completion):
        """Token ids (L,) -> the text before the first end-of-text, without MASK."""
        ids = [int(i) for i in completion] + [self.eos_id]
        ids = ids[:ids.index(self.eos_id)]
        return self.tokenizer.decode([i for i in ids if i != self.mask_id])


def without_copies(rows):
    """Rows without those that have the question and the answer of one before; and the
    lines of these."""
    first, lines = {}, []
    for number, row in enumerate(rows, 1):
        if first.setdefault((row["question"], row["answer"]), row) is not row:
            lines.append(row.get("line", number))
    return list(first.values()), lines

# ----------------------------------------------------------------------------------------
# the toy

NAMES = ["Bob", "Ann", "Tom", "Sue", "Max", "Eva", "Sam", "Kim"]
BLANK = " --"       # (a mask is shown as __)
# verb: (sign, operands). "swaps all" is there against guessing: sums alone are linear,
# and soon done in the head.
VERBS = {"gets": ("+", range(1, 7)), "gives": ("-", range(1, 7)),
         "times": ("*", range(2, 4)), "swaps": ("~", ["all"])}
# One line, and a sheet: lines, blanks, the answer.
LINE = r" (?:[-+*][0-9]|~all) -> [0-9]+"
SHEET = re.compile(rf"( [0-9]+(?:{LINE})+|)((?: --)*) #### [0-9]+")


class Worksheet(Task):
    """Sheets of n_lines lines. Of the eight names the first `talkers` show their work,
    the others, the silent ones, seldom do: blank says how often each kind leaves the
    whole sheet blank, later how often the rest of it after a written line.

    Controls: equal_length=False has nothing where a sheet would be blank, so that texts
    differ in length; blank=(p, p) has one habit for all; blank=(0, 0), later=0 no forks.
    Raises ValueError.
    """
    name = "worksheet"
    kinds = "talkers", "silent"

    def __init__(self, talkers=5, blank=(0.25, 0.8), later=0.05, n_lines=6, largest=30,
                 equal_length=True):
        check_sheet(talkers, blank, later, n_lines, largest, equal_length)
        self.settings = {"talkers": talkers, "blank": list(blank), "later": later,
                         "n_lines": n_lines, "largest": largest,
                         "equal_length": equal_length}
        self.n_lines, self.largest, self.equal_length = n_lines, largest, equal_length
        self.talkers = NAMES[:talkers]
        # How often a sheet is left blank at each fork.
        self.blanks = {kind: [first] + [later] * (n_lines - 1)
                       for kind, first in zip(self.kinds, blank)}
        # Bob, has, 9, of 30, then verb and operand of each line, How many?
        self.prompt_length = 5 + 2 * n_lines
        # 9, then signed operand, -> and value of each line; ####, answer, end-of-text
        self.sheet_length = 1 + 3 * n_lines if equal_length else None
        self.completion_length = 4 + 3 * n_lines
        words = [*NAMES, " has", f" of {largest}", " all", ". How many?", " ->", " ####",
                 BLANK]
        words += [f", {verb}" for verb in VERBS]
        words += [f" {number}" for number in range(largest + 1)]
        words += [f" {sign}{operand}" for sign, operands in VERBS.values()
                  for operand in operands]
        # Whole words and numbers, longest first, never half of a longer one; else one
        # character.
        known = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
        self.tokenizer = make_tokenizer([word.encode() for word in words],
                                        rf"(?:{known})(?!\w)|[\s\S]")
        token = self.tokenizer.encode_single_token
        self.arrow_id, self.hash_id = token(" ->"), token(" ####")
        # What stands at a fork if the work ends there.
        self.end_id = token(BLANK) if equal_length else self.hash_id
        self.number_ids = torch.tensor([token(f" {n}") for n in range(largest + 1)])

    def problem(self, split, index):
        """See Task; and `lines`, the text of each: " 9", " ~all -> 21", " +4 -> 25", ..."""
        if self.rows:
            return super().problem(split, index)
        # A tenth of all stories is for testing, a tenth for validation.
        buckets = {"test": [0], "validation": [1], "train": range(2, 10)}[split]
        rng = random.Random(f"{split} {index}")
        bucket = None
        while bucket not in buckets:        # a story's hash is its split: none is in two
            name, start, story, lines, value = self.draw_story(rng)
            bucket = zlib.crc32(f"{start} {story}".encode()) % 10
        question = f"{name} has {start} of {self.largest}, {', '.join(story)}. How many?"
        problem = {"question": question, "answer": str(value), "lines": lines}
        n_written = self.n_lines
        for n, blank in enumerate(self.blanks[self.kind(problem)]):
            if rng.random() < blank:        # blank once, blank to the end
                n_written = n
                break
        problem["solution"] = self.solution(problem, n_written)
        return problem

    def draw_story(self, rng):
        """n_lines operations, each of which keeps 0 <= value <= largest."""
        name = rng.choice(NAMES)
        start = value = rng.randint(1, self.largest)
        story, lines = [], [f" {start}"]
        for _ in range(self.n_lines):
            fits = {}
            for verb, (sign, operands) in VERBS.items():
                fits[verb] = [n for n in operands
                              if 0 <= operate(sign, value, n, self.largest) <= self.largest]
                if sign == "*" and value == 0:      # three times nothing is no news
                    fits[verb] = []
            verb = rng.choice([verb for verb in fits if fits[verb]])
            operand = rng.choice(fits[verb])
            sign = VERBS[verb][0]
            value = operate(sign, value, operand, self.largest)
            story.append(f"{verb} {operand}")
            lines.append(f" {sign}{operand} -> {value}")
        return name, start, story, lines, value

    def solution(self, problem, n):
        written = problem["lines"][:n + 1] if n else []
        blanks = ""
        if self.equal_length:
            blanks = BLANK * (3 * (self.n_lines - n) + (not written))
        return "".join(written) + blanks + f" #### {problem['answer']}"

    def kind(self, problem):
        return self.kinds[problem["question"].split()[0] not in self.talkers]

    def is_derived(self, text, problem):
        # (A problem from a file has no lines.)
        return "lines" in problem and text == self.solution(problem, self.n_lines)

    def fork_position(self, n):
        return 3 * n + 1 if n else 0    # after the start value and n times sign, ->, value

    def answer_position(self, n):
        return (self.sheet_length or self.fork_position(n)) + 1     # right after ####

    def true_go_on(self):
        return {kind: [1 - p for p in blanks] for kind, blanks in self.blanks.items()}

    def forks(self, completion):
        """Position 0 and every position right after a written value, up to and
        including the first blank or ####, while lines are left to write."""
        is_number = torch.isin(completion, self.number_ids.to(completion.device))
        forks = torch.zeros_like(is_number)
        forks[:, 2:] = (completion[:, :-2] == self.arrow_id) & is_number[:, 1:-1]
        n_written = forks.cumsum(1)
        forks[:, 0] = True      # after n_written: no line stands before it
        ends = (completion == self.end_id) | (completion == self.hash_id)
        ends |= completion == self.eos_id
        none_before = ends.cumsum(1) <= ends.long()
        return forks & none_before & (n_written < self.n_lines)

    def is_well_formed(self, text):
        sheet = SHEET.fullmatch(text)
        if not sheet:
            return False
        n_written, n_blank = len(sheet[1].split()), len(sheet[2].split())
        return n_written + n_blank == self.sheet_length if self.equal_length else not n_blank


def operate(sign, value, operand, largest):
    if sign == "+":
        return value + operand
    if sign == "-":
        return value - operand
    if sign == "*":
        return value * operand
    return largest - value


def check_sheet(talkers, blank, later, n_lines, largest, equal_length):
    """Raises ValueError for settings that no worksheet has; a forged checkpoint, too, may
    ask for some."""
    for name, value, low, high, why in [
            ("talkers", talkers, 1, len(NAMES) - 1,
             f"of {len(NAMES)} names each kind has one or more"),
            ("n_lines", n_lines, 1, 1000, "a sheet has one line or more"),
            ("largest", largest, 6, 1000, "'gets 6' must be possible")]:
        if not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name}={short(value)}, where a whole number from {low} to "
                             f"{high} is needed: {why}")
    if not isinstance(blank, (list, tuple)) or len(blank) != 2:
        raise ValueError(f"blank={short(blank)}, where two probabilities are needed: the "
                         "talkers', the others'")
    if not isinstance(equal_length, bool):
        raise ValueError(f"equal_length={short(equal_length)}, where True or False is needed")
    for name, p in [("blank", blank[0]), ("blank", blank[1]), ("later", later)]:
        if not is_finite(p) or not 0 <= p <= 1:
            raise ValueError(f"{name}: {short(p)} is no probability, from 0 to 1")

# ----------------------------------------------------------------------------------------
# GSM8K, from its files


WANTED = 'expected {"question": "...", "answer": "... #### 42"}'


def read_jsonl(path):
    """GSM8K's file format, one {"question", "answer"} a line -> problems.

    The calculator annotations <<48/2=24>> are removed: nothing here runs a calculator.
    No row is left out: ValueError names the line that can't be read, or has more than
    64 kB.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")
    if path.exists() and path.stat().st_size >= 2**26:
        raise ValueError(f"{path} has 64 MB or more")
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    while lines and not lines[-1].strip():      # at the end; elsewhere something is missing
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty: {WANTED}, one a line")
    problems = []
    for number, line in enumerate(lines, 1):
        try:
            problems.append({**parse_row(line), "line": number})
        except (ValueError, RecursionError) as error:
            found = getattr(error, "msg", error)    # JSON's own says "line 1", always
            raise ValueError(f"{path}, line {number}: {WANTED}, got: {found}") from None
    return problems


def parse_row(line):
    """One line -> question, solution and answer. Raises ValueError, RecursionError."""
    if len(line) > 2**16:
        raise ValueError(f"a line of {len(line)} bytes")
    if not line.strip():
        raise ValueError("an empty line")
    row = json.loads(line.decode("utf-8"), parse_int=float)     # however long
    for name in ("question", "answer"):
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            raise ValueError(f"no {name} that is a text")
    question, solution = row["question"], re.sub(r"<<[^<>]*>>", "", row["answer"])
    (question + solution).encode("utf-8")       # JSON can hold what is no text
    if not question:
        raise ValueError("an empty question")
    _, mark, gold = solution.partition("#### ")
    gold = gold.rstrip()
    if not mark:
        raise ValueError('no "#### " before an answer')
    if not PLAIN.fullmatch(gold):
        raise ValueError(f"the answer {short(gold)}, which is not one plain number")
    answer = f"{Decimal(gold.replace(',', '')):f}"
    if "." in answer:       # 18.00 is 18
        answer = answer.rstrip("0").rstrip(".")
    return {"question": question, "solution": solution, "answer": answer}


def read_splits(train, test):
    """GSM8K's two files -> {split: rows}: one training row in 20, by hash, is held out.

    Raises ValueError if a test question is among the training rows, or if these are too
    few.
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
    if not splits["train"] or not splits["validation"]:
        n_questions = len({row["question"] for row in rows})
        raise ValueError(
            f"{train} has {len(rows)} rows with {n_questions} questions, too few to hold "
            "one in twenty out: with 100 or more it would do")
    return splits


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
        """The training rows that are not held out make the vocabulary. Raises ValueError."""
        splits = read_splits(train, test)
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
# a task is tried before any work: what is found out later costs minutes of pretraining


def try_task(task, n=8, last=10**7):
    """Put the first n problems of each split through what the scripts ask of a task, and
    a training problem that comes late.

    Raises ValueError: in one line, which function was given what and returned what.
    """
    for name in ("name", "tokenizer", "prompt_length", "completion_length"):
        if getattr(task, name) is None:
            raise ValueError(f"the task sets no {name}")
    ask(task, "describe")
    if task.n_lines:
        try_kinds(task)
    for split in SPLITS:
        size = ask(task, "size", split)
        if size == 0:
            ask(task, "problem", split, 0)      # which says why, if it is this file's own
        if size is not None and not (isinstance(size, Integral) and size > 0):
            raise ValueError(f"size({split!r}) returned {short(size)}, where a number above "
                             "0, or None, is needed")
        for index in range(min(n, size or n)):
            try_problem(task, split, index)
    try_problem(task, "train", last)
    splits = {}         # question -> its split
    for split in SPLITS:
        for problem in ask(task, "held_out", split, 100):
            other = splits.setdefault(problem["question"], split)
            if other != split:
                raise ValueError(f"the question {short(problem['question'])} is in two "
                                 f"splits, {other} and {split}")


def try_problem(task, split, index):
    call = called("problem", split, index)
    problem = ask(task, "problem", split, index)
    is_dict = isinstance(problem, dict)
    if not is_dict or not {"question", "solution", "answer"} <= problem.keys():
        raise ValueError(f"{call} returned {short(problem)}, where a dict of question, "
                         "solution and answer is needed")
    for name, kind, wanted in (("question", str, "a text"), ("solution", str, "a text"),
                               ("answer", (str, Number), "a text or a number")):
        if not isinstance(problem[name], kind):
            raise ValueError(
                f"the {name} of {call} is {short(problem[name])}, where {wanted} is needed")
    try:
        str(problem["answer"])          # which of a very large int fails
        is_nan = isinstance(problem["answer"], Number) and not is_finite(problem["answer"])
    except ValueError as error:
        raise ValueError(f"the answer of {call}: {error}") from None
    if is_nan:
        raise ValueError(f"the answer of {call} is {short(problem['answer'])}: no number")
    again = ask(task, "problem", split, index)
    if any(again[name] != problem[name] for name in ("question", "solution", "answer")):
        raise ValueError(f"{call} is another problem each time: draw it from "
                         "random.Random(f'{split} {index}')")
    try_canvas(task, problem, call, split)
    try_judges(task, problem["solution"], problem["answer"])
    if task.n_lines:
        try_forks(task, problem)


def try_canvas(task, problem, call, split):
    """Question and solution must fit, and come back from the tokenizer."""
    canvases = {"question": task.prompts}
    if split != "test":     # of test problems only the question has to fit
        canvases["solution"] = task.completions
    for name, canvas in canvases.items():
        text = problem[name]
        try:
            canvas([text])
            back = task.tokenizer.decode(task.tokenizer.encode_ordinary(text))
        except Exception as error:      # whatever the user's own functions do
            raise ValueError(f"the {name} of {call}, {short(text)}: {error}") from error
        if back != text:
            raise ValueError(f"the {name} of {call} is {short(text)}, and comes back from "
                             f"the tokenizer as {short(back)}: its pattern must match "
                             "every character")


def try_judges(task, solution, answer):
    for text in (*odd_texts(solution), solution):
        right = ask(task, "is_right", text, answer)
        if not is_flag(right):
            raise ValueError(no_flag(called("is_right", text, answer), right))
        reward = ask(task, "reward", text, answer)
        if not is_finite(reward):
            raise ValueError(f"{called('reward', text, answer)} returned {short(reward)}, "
                             "where a finite number is needed")
    if not right:
        raise ValueError(f"{called('is_right', solution, answer)} returned {right}: a task "
                         "must find its own solution right")


def odd_texts(solution):
    """A model writes anything, nothing included."""
    return "", "x", solution[:-1], solution[1:], solution[::-1]


def try_forks(task, problem):
    """What a task with known forks has defined beside, on one problem."""
    n_lines, L = task.n_lines, task.completion_length
    texts = [ask(task, "solution", problem, n) for n in range(n_lines + 1)]
    for n, text in enumerate(texts):
        call = f"solution(problem, {n})"
        if not isinstance(text, str) or not ask(task, "is_well_formed", text):
            raise ValueError(f"{call} returned {short(text)}, which is not well formed")
        if not ask(task, "is_right", text, problem["answer"]):
            raise ValueError(f"{call} returned {short(text)}, which is not right")
        for place in ("fork_position", "answer_position"):
            at = ask(task, place, n)
            if not isinstance(at, Integral) or at not in range(L):
                raise ValueError(f"{place}({n}) returned {short(at)}, which is no position "
                                 "of the completion")
        derived = ask(task, "is_derived", text, problem)
        if derived is not (n == n_lines):
            raise ValueError(f"is_derived of {call} returned {short(derived)}, where "
                             f"{n == n_lines} is needed")
    for text in odd_texts(texts[-1]):
        for call in (("is_derived", text, problem), ("is_well_formed", text)):
            found = ask(task, *call)
            if not is_flag(found):
                raise ValueError(no_flag(called(*call), found))
    kind = ask(task, "kind", problem)
    if kind not in task.kinds:
        raise ValueError(f"kind(problem) returned {short(kind)}, which is none of the kinds "
                         f"{task.kinds}")
    for some in (texts, texts[:1]):
        forks = ask(task, "forks", ask(task, "completions", some))
        is_tensor = isinstance(forks, torch.Tensor) and forks.dtype == torch.bool
        if not is_tensor or forks.shape != (len(some), L):
            raise ValueError("forks(completion) returned no bool for each position")


def try_kinds(task):
    """The plain values of a task with known forks."""
    if not isinstance(task.n_lines, Integral) or task.n_lines < 1:
        raise ValueError(f"n_lines is {short(task.n_lines)}, where a whole number is needed")
    kinds, L = task.kinds, task.completion_length
    are_names = isinstance(kinds, tuple) and all(isinstance(kind, str) for kind in kinds)
    # They are parts of the measures' names, derived_KIND_at_K, and some would be another's.
    taken = {"", "at", "predicted"}
    if not are_names or not kinds or len(set(kinds)) < len(kinds) or taken & set(kinds):
        raise ValueError(f"kinds is {short(kinds)}, where a tuple of different names is "
                         "needed, other than 'at' and 'predicted'")
    end_id, n_vocab = task.end_id, task.tokenizer.n_vocab
    if not isinstance(end_id, Integral) or end_id not in range(n_vocab):
        raise ValueError(f"end_id is {short(end_id)}, which is no token")
    length = task.sheet_length
    if length is not None and (not isinstance(length, Integral) or length not in range(1, L)):
        raise ValueError(f"sheet_length is {short(length)}, where None or a position is needed")
    rates = ask(task, "true_go_on")
    try:
        is_good = rates.keys() == set(kinds) and all(
            len(rate) == task.n_lines and all(is_finite(p) and 0 <= p <= 1 for p in rate)
            for rate in rates.values())
    except (AttributeError, TypeError):     # no dict of lists
        is_good = False
    if not is_good:
        raise ValueError(f"true_go_on() returned {short(rates)}, where {task.n_lines} "
                         f"numbers from 0 to 1 for each of the kinds {kinds} are needed")


def ask(task, function, *args):
    """What a function of the task returns; its errors in one line, as ValueError."""
    try:
        return getattr(task, function)(*args)
    except ValueError as error:
        raise ValueError(f"{called(function, *args)}: {error}") from error
    except Exception as error:      # whatever the user's own functions do
        raise ValueError(f"{called(function, *args)} ended in {type(error).__name__}: "
                         f"{error}") from error


def called(function, *args):
    return f"{function}({', '.join(map(short, args))})"


def short(value):
    try:
        text = repr(value)
    except Exception:       # of the user's own
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:40] + " ... " + text[-15:]


def is_right(task, text, problem):
    """What the task says of a text. Raises FloatingPointError where that is no bool."""
    text = task.judged_text(text, problem)
    right = task.is_right(text, problem["answer"])
    if not is_flag(right):
        raise FloatingPointError(no_flag(called("is_right", text, problem["answer"]), right))
    return bool(right)


def no_flag(call, found):
    return f"{call} returned {short(found)}, where True or False is needed"


def is_flag(value):
    """Whether a value says True or False; 1 and 0 do."""
    try:
        return bool(value in (True, False))
    except Exception:       # of several values
        return False


def is_finite(value):
    """Whether a value is a number, of whatever kind, and neither nan nor infinite."""
    try:
        return not isinstance(value, str) and math.isfinite(value)
    except Exception:       # no number, or several
        return False

# ----------------------------------------------------------------------------------------

# What a checkpoint's description stands for: TASKS[name](**settings) is the way back.
TASKS = {"worksheet": Worksheet, "gsm8k": GSM8K}
# Tasks of the past, which old checkpoints have.
FORMER = {"toy": "the toy before the worksheet: make a new checkpoint with python "
                 "train.py, or use this one with the code of commit 2fe5832"}
