"""Facts about the task: problems, tokenizers, answers, forks, files.

    python -m pytest tests/test_data.py
"""
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
import torch

import data
from data import (EOS, GSM8K, GSM8K_PATTERN, MASK, Toy, exact_match, extract_answer, load_task,
                  make_tokenizer, read_jsonl, train_bpe)

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
GSM8K_FILES = [ROOT.parent / "shared" / "gsm8k" / f"{name}.jsonl" for name in ("test", "train")]
needs_gsm8k = pytest.mark.skipif(not GSM8K_FILES[0].exists(), reason="no ../shared/gsm8k here")

TOY = Toy()
PROBLEMS = {split: TOY.problems(split, 0, n)
            for split, n in (("train", 4000), ("validation", 2000), ("test", 2000))}
EVERY = [p for problems in PROBLEMS.values() for p in problems]


def read_story(question):
    """A second reader of the question's English: -> operands as written, running values."""
    start, total, story = re.fullmatch(r"[A-Z][a-z]+ has (\d+) of (\d+),(.*)\. How many\?",
                                       question).groups()
    operands, values = [], [int(start)]
    for phrase in story.split(","):
        verb, n = phrase.split()
        operands.append({"gets": "+", "gives": "-", "times": "*", "swaps": "~"}[verb] + n)
        value = values[-1]
        values.append(int(total) - value if verb == "swaps" else {
            "gets": value + int(n), "gives": value - int(n), "times": value * int(n)}[verb])
    return operands, values


def steps_written(problem):
    return problem["solution"].count("->")


# -------------------------------------------------------------------------------------- problems

def test_no_story_stands_in_two_splits():
    # The name is left out: "Ann has 3, ..." would give away "Bob has 3, ...".
    stories = {split: {p["question"].split(" ", 1)[1] for p in problems}
               for split, problems in PROBLEMS.items()}
    assert all(len(s) > 1900 for s in stories.values())     # hardly a story comes twice, too
    assert not stories["train"] & stories["test"]
    assert not stories["train"] & stories["validation"]
    assert not stories["validation"] & stories["test"]


def test_the_splits_are_disjoint_by_construction_and_not_by_luck():
    # Of six operations there are so many stories that two draws hardly ever meet. With two there
    # are a few thousand, and nearly every one is drawn: still none is in two splits.
    short = Toy(n_steps=2)
    train, validation, test = ({p["question"].split(" ", 1)[1] for p in short.problems(s, 0, n)}
                               for s, n in (("train", 6000), ("validation", 2000), ("test", 2000)))
    assert not train & validation and not train & test and not validation & test
    found, all_stories, largest = len(train | validation | test), 0, data.LARGEST
    for start in range(1, largest + 1):
        after_one = [v for v in after(start) if 0 <= v <= largest]
        all_stories += sum(0 <= w <= largest for v in after_one for w in after(v))
    assert 0.6 * all_stories < found <= all_stories
    assert len(validation) / found == pytest.approx(0.1, abs=0.05)      # one story in ten
    assert len(test) / found == pytest.approx(0.1, abs=0.05)


def after(v):
    """Every value that one operation can make of v."""
    return [v + n for n in range(1, 10)] + [v - n for n in range(1, 10)] + [2 * v, 3 * v] * (v > 0)


def test_a_problem_is_a_pure_function_of_split_and_index():
    random.seed(7)      # the global state must not matter, and must not be touched
    state = random.getstate()
    again = [Toy().problem("train", i) for i in (17, 3, 3999)]      # any order, a new task
    assert again == [PROBLEMS["train"][i] for i in (17, 3, 3999)]
    assert random.getstate() == state


def test_an_unknown_split_is_refused_and_not_searched_for_ever(monkeypatch):
    # No story belongs to such a split: it would be drawn for ever.
    hashes, plain = [], data.zlib.crc32

    def counted(*args):
        hashes.append(args)
        assert len(hashes) < 1000, "still looking"
        return plain(*args)
    monkeypatch.setattr(data.zlib, "crc32", counted)
    with pytest.raises((ValueError, KeyError)):
        Toy().problem("valid", 0)


def test_a_fresh_process_makes_the_same_problems():
    # Python salts str hashes afresh in every process: a problem must not hang on them.
    code = ("import json; from data import Toy; t = Toy(); print(json.dumps([t.problem(s, i) for s "
            "in ('train', 'validation', 'test') for i in range(20)]))")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True,
                         env={**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"}).stdout
    here = [PROBLEMS[split][i] for split in PROBLEMS for i in range(20)]
    assert json.loads(out) == json.loads(json.dumps(here))


def test_every_solution_is_right_by_independent_arithmetic():
    for p in EVERY:
        operands, values = read_story(p["question"])
        text, answer = p["solution"].split(" #### ")
        n = steps_written(p)
        words = [str(values[0])] if n else []
        for operand, value in zip(operands[:n], values[1:]):
            words += [operand, "->", str(value)]
        assert text.split() == words
        assert answer == p["answer"] == str(values[-1])
        assert TOY.reward(p["solution"], p["answer"]) == 1.0


def test_every_story_has_six_operations_that_stay_from_0_to_the_largest_number():
    seen = Counter()
    for p in EVERY:
        operands, values = read_story(p["question"])
        assert len(operands) == 6 and min(values) >= 0 and max(values) <= data.LARGEST <= 20
        # Nothing times zero: the answer would then be known without the story before it.
        assert not any(v == 0 and o[0] == "*" for v, o in zip(values, operands))
        seen.update(operands)
    assert set(seen) == {f"{s}{n}" for s in "+-" for n in range(1, 7)} | {"*2", "*3", "~all"}


def test_every_number_of_written_steps_occurs():
    assert {steps_written(p) for p in PROBLEMS["train"]} == set(range(7))


@pytest.mark.parametrize("direct, skip", [(TOY.direct, TOY.skip), (0.2, 0.4)])
def test_the_text_jumps_to_the_answer_as_often_as_it_says(direct, skip):
    problems = (PROBLEMS["train"] if direct == TOY.direct else
                Toy(direct, skip).problems("train", 0, 2000))
    written = [steps_written(p) for p in problems]
    for fork in range(6):       # at each fork for itself: of those who came here, who jumped?
        here, rate = sum(n >= fork for n in written), skip if fork else direct
        jumped = sum(n == fork for n in written)
        assert abs(jumped - rate * here) < 4.5 * (rate * (1 - rate) * here) ** 0.5


def test_without_forks_every_step_is_written_and_with_direct_1_none():
    assert {steps_written(p) for p in Toy(0, 0).problems("train", 0, 200)} == {6}
    assert {steps_written(p) for p in Toy(1, 0).problems("train", 0, 200)} == {0}
    # The rates change what is written, not the stories.
    assert Toy(1, 0).problem("test", 5)["question"] == PROBLEMS["test"][5]["question"]


def test_every_prompt_fills_its_length_in_whole_words_and_every_completion_fits_22_tokens():
    assert TOY.prompt_length < 24 and TOY.completion_length == 22
    for p in EVERY:
        ids = TOY.tokenizer.encode_ordinary(p["question"])
        assert len(ids) == TOY.prompt_length and min(ids) >= 256    # no padding, no single bytes
        for n in range(7):
            # One token a word. (21 + end-of-text) is the longest: 1 + 6 * 3 + 2 words.
            assert len(TOY.solution(p, n).split()) == (1 + 3 * n if n else 0) + 2
    rows = TOY.completions([TOY.solution(p, 6) for p in EVERY[:500]])
    assert rows.shape == (500, 22)
    assert (rows[:, 21] == TOY.eos_id).all() and (rows[:, :21] != TOY.eos_id).all()


def test_the_solution_that_a_problem_shows_is_the_one_that_writes_that_many_steps():
    for p in EVERY[::10]:
        assert p["solution"] == TOY.solution(p, steps_written(p))
        assert all(TOY.is_well_formed(TOY.solution(p, n)) for n in range(7))


@pytest.mark.parametrize("text", [
    "", " 11", " 11 #### 11", " #### ", " 11 -8 -> 3", " 11 -8 #### 3", " 11 -> 3 #### 3",
    " #### 8 #### 8", " 11 -8 -> 3 +1 #### 3"])
def test_a_text_with_a_hole_is_malformed(text):
    assert not TOY.is_well_formed(text)


# ------------------------------------------------------------------------------------ tokenizers

SNIPPET = ("Janet’s ducks lay 16 eggs per day.  She sells the rest at the farmers' market "
           "for $2 a duck egg.\nShe sells 16 - 3 - 4 = 9 duck eggs a day.\n#### 18\n") * 2
BPE = make_tokenizer(train_bpe(SNIPPET, 60), GSM8K_PATTERN)
TOKENIZERS = {"toy": TOY.tokenizer, "bpe": BPE}
both = pytest.mark.parametrize("name", list(TOKENIZERS))


def test_a_worked_solution_is_one_token_a_word():
    text = " 9 -6 -> 3 +1 -> 4 *3 -> 12 ~all -> 0 #### 0"
    ids = TOY.tokenizer.encode_ordinary(text)
    words = [TOY.tokenizer.decode([i]) for i in ids]
    assert words == [" 9", " -6", " ->", " 3", " +1", " ->", " 4", " *3", " ->", " 12", " ~all",
                     " ->", " 0", " ####", " 0"]
    assert TOY.tokenizer.decode(ids) == text


def random_text(rng):
    ranges = [(32, 127), (0, 32), (0xA0, 0x250), (0x300, 0x370), (0x4E00, 0x4F00), (0x660, 0x66A),
              (0x1F600, 0x1F640), (0x2000, 0x2070), (0xE000, 0xE010), (0xFFF0, 0x10000),
              (0x10FFF0, 0x110000)]
    letters = [chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(40))]
    return "".join(letters)


@both
def test_any_valid_string_comes_back_from_its_tokens(name):
    # What a tokenizer's pattern does not match, tiktoken drops without a word.
    rng, tokenizer = random.Random(0), TOKENIZERS[name]
    texts = [random_text(rng) for _ in range(1000)] + [
        "", " ", "\n", "\r\n\r", "\0", "a\0b", "\t \u2028\u00a0x  ", "Janet’s", "e\u0301",
        "under_score__", "٣ × ½", "_", " _ ", "has20", " 12 has", "\ufeff", MASK, EOS,
        f"x{MASK}{EOS} ", "<|", "#### ####", " ->->"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text


@needs_gsm8k
@both
def test_gsm8k_comes_back_from_its_tokens(name):
    tokenizer = TOKENIZERS[name]
    for path in GSM8K_FILES:
        text = path.read_text(encoding="utf-8")[:400_000]
        rows = [row for line in text.splitlines()[:-1] for row in json.loads(line).values()]
        assert len(rows) > 500
        for row in rows:
            assert tokenizer.decode(tokenizer.encode_ordinary(row)) == row


@both
def test_the_literal_names_of_the_special_tokens_are_ordinary_text(name):
    tokenizer = TOKENIZERS[name]
    special = {tokenizer.encode_single_token(MASK), tokenizer.eot_token}
    assert len(special) == 2 and max(special) == tokenizer.n_vocab - 1
    for text in (MASK, EOS, f"3{EOS}{MASK}", f" {MASK} "):
        assert not special & set(tokenizer.encode_ordinary(text))
    # A question that writes them, too: nobody can put a mask on the canvas by typing one.
    if name == "toy":
        row = TOY.prompts([MASK])[0]
        assert TOY.mask_id not in row and (row == TOY.eos_id).sum() == len(row) - len(MASK)


def test_no_longer_number_is_read_as_a_shorter_one():
    numbers = set(TOY.number_ids.tolist())
    largest = data.LARGEST
    for n in [*range(largest + 1, 400), 1000, 2024, 123456789]:
        for text in (f" {n}", f" -{n}", f" +{n} ", f" 0{n}"):
            ids = TOY.tokenizer.encode_ordinary(text)
            assert not numbers & set(ids), text
            assert TOY.tokenizer.decode(ids) == text
    for n in range(largest + 1):
        assert TOY.tokenizer.encode_ordinary(f" {n}") == [TOY.number_ids[n]]


@both
def test_the_text_of_a_completion_ends_at_its_first_end_of_text(name):
    task = TOY if name == "toy" else GSM8K("", prompt_length=60, completion_length=20)
    ids = task.tokenizer.encode_ordinary(" #### 8")
    later = task.tokenizer.encode_ordinary(" #### 9")
    assert task.text(ids) == task.text(torch.tensor(ids)) == " #### 8"
    assert task.text([*ids, task.eos_id, *later, task.eos_id]) == " #### 8"
    assert task.text([task.eos_id, *ids]) == ""
    # A mask has no text; it does not end one.
    assert task.text([task.mask_id, *ids, task.mask_id]) == " #### 8"


def test_prompts_are_padded_on_the_left_and_completions_on_the_right():
    P, (short, long) = TOY.prompt_length, ("Bob has 3", "Bob has 3 -> 4. How many?")
    assert [len(TOY.tokenizer.encode_ordinary(q)) for q in (short, long)] == [3, 6]
    ids = [TOY.tokenizer.encode_ordinary(q) for q in (short, long)]
    prompts = TOY.prompts([short, long])
    assert prompts.shape == (2, P)
    for row, words in zip(prompts.tolist(), ids):
        assert row == [TOY.eos_id] * (P - len(words)) + words
    completion = TOY.completions([" #### 8"])[0].tolist()
    assert completion == TOY.tokenizer.encode_ordinary(" #### 8") + [TOY.eos_id] * 20
    # Another row in the batch changes nothing: the length is the task's, not the batch's.
    assert TOY.prompts([short]).tolist() == prompts[:1].tolist()
    assert TOY.prompts([short], 5)[0].tolist() == [TOY.eos_id] * 2 + ids[0]


def test_what_does_not_fit_is_refused_with_the_limit():
    P = TOY.prompt_length
    with pytest.raises(ValueError, match=rf"\b{P + 1}\b.*\b{P}\b"):
        TOY.prompts(["Bob has 3", "x" * (P + 1)])
    with pytest.raises(ValueError, match=r"\b23\b.*\b22\b"):
        TOY.completions(["x" * 23])
    assert TOY.prompts(["x" * P]).shape == (1, P)       # the limit itself fits


# --------------------------------------------------------------------------------------- answers

@pytest.mark.parametrize("text, answer", [
    ("#### 72", "72"),
    ("so she has 3 + 4 = 7.\n#### 7", "7"),
    ("#### 1,234", "1234"),
    ("#### 1,234,567", "1234567"),
    ("#### -5", "-5"),
    ("#### 18.00", "18"),           # as a number: 18.00 is 18
    ("#### 0.5", "0.5"),
    ("#### .5", "0.5"),
    ("#### 007", "7"),
    ("#### -0", "0"),
    ("#### 72.", "72"),             # deviation 2: a full stop after it is not part of it
    ("#### 72, and", "72"),
    ("#### 72...", "72"),
    ("#### $1,234", "1234"),        # deviation 1: a dollar sign
    ("#### -$5", "-5"),
    ("#### $-5", "-5"),
    ("#### 10%", "10"),
    ("#### 5 #### 6", "5"),         # the first of two
    ("#### 5\n#### 6", "5"),
    ("#### 5. And 7 more.", "5"),   # never a later number
    (" #### 5", "5"),
    ("####72", None),               # the expression has a space
    ("####\n72", None),
    ("####  72", None),
    ("### 72", None),
    ("", None),
    ("72", None),
    ("72 ####", None),
    ("#### ", None),
    ("####", None),
    ("#### x", None),
    ("#### x 72", None),            # a number later in the text is not the answer
    ("#### 1.2.3", None),
    ("#### 1.2.3\n#### 5", None),   # the first #### counts, also where it is no number
    ("#### -", None),
    ("#### --5", None),
    ("#### -$-5", None),
    ("#### .", None),
    ("#### ,", None),
    ("#### +5", None),
    ("#### \u0663\u0664", None),    # Arabic-Indic digits are digits to int(), not to GSM8K
    ("#### \uff15", None),
    ("#### NaN", None),
    ("#### Infinity", None),
])
def test_the_answer_is_the_number_after_the_first_four_hashes(text, answer):
    found = extract_answer(text)
    assert found == (None if answer is None else Decimal(answer))
    for candidate in ("5", "72", "1234", "-5", "18", "0"):
        right = answer is not None and Decimal(answer) == Decimal(candidate)
        assert exact_match(text, candidate) == float(right)


def test_a_very_long_number_is_compared_to_its_last_digit():
    digits = "9" * 400
    assert exact_match(f"#### {digits}", digits) == 1.0
    assert exact_match(f"#### {digits[:-1]}8", digits) == 0.0       # floats would say equal
    assert exact_match(f"#### {digits}.0", digits) == 1.0


@needs_gsm8k
def test_the_official_expression_agrees_on_every_row_of_gsm8ks_test_file():
    official = re.compile(r"#### (\-?[0-9\.\,]+)")
    lines = GSM8K_FILES[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1319
    problems = read_jsonl(GSM8K_FILES[0])
    for line, problem in zip(lines, problems, strict=True):
        raw = json.loads(line)["answer"]
        expected = official.search(raw).group(1).replace(",", "")
        assert extract_answer(raw) == extract_answer(problem["solution"]) == Decimal(expected)
        assert Decimal(problem["answer"]) == Decimal(expected)
        assert exact_match(raw, problem["answer"]) == 1.0


# ----------------------------------------------------------------------------------------- forks

def forks_by_definition(ids):
    """design.md 9, one position at a time: right after a written value (or at 0), nothing ended
    before, fewer steps written before it than the problem has."""
    numbers = set(TOY.number_ids.tolist())

    def is_fork(i):
        before = ids[:i]
        values = [j for j in range(1, i) if before[j - 1] == TOY.arrow_id and before[j] in numbers]
        ended = TOY.hash_id in before or TOY.eos_id in before
        return not ended and len(values) < 6 and (i == 0 or (i - 1) in values)
    return [is_fork(i) for i in range(len(ids))]


STEPS = ["+1 -> 2", "+1 -> 3", "+1 -> 4", "+1 -> 5", "+1 -> 6", "+1 -> 7", "+1 -> 8"]


@pytest.mark.parametrize("marked", [        # a bar before every token that is a fork
    "| #### 8",
    "| 11 -8 -> 3| #### 8",
    "| 11 -8 -> 3| +1 -> 4| #### 8",
    "| 1 " + "| ".join(STEPS[:5]) + "| #### 8",
    "| 1 " + "| ".join(STEPS[:6]) + " #### 7",          # after the last step #### is forced
    "| 1 " + "| ".join(STEPS[:6]) + " " + STEPS[6],     # more steps than operations
    "|",                                                # end-of-text at once
    "| 11 -8 -> 3|",                                    # no ####: the jump went to end-of-text
    "| 11 -8 -> 3| 5 6 7",                              # no ####, but a number
    "| ->",
    "| -> 3| #### 3",                                   # a value without a start
    "| -> -> 3| -> 4| #### 4",
    "| 11 -8 -> +1 -> 4| #### 4",                       # an arrow without its number
    "| 11 -8 -> #### 4",
    "| 11 3 4 5 #### 5",                                # numbers, but no value
    "| 11 -8 -> 3| #### 3 -8 -> 3 #### 3",              # only up to the first ####
    "| #### 3 -> 4",
    "| 11 -8 -> 30| -1 -> 2",                           # 30 is no number token; see below
    f"| 11 -8 -> 3|{EOS} +1 -> 4 #### 4",               # end-of-text early
    f"|{EOS} 11 -8 -> 3 #### 3",
    f"| 11 -8 ->{MASK} +1 -> 4| #### 4",                # a mask is not a value
    f"| 11 -8 -> 3|{MASK} -> 4| #### 4",
    f"|{MASK}{MASK} -> 4|{MASK}",
])
def test_a_fork_is_position_0_or_right_after_a_written_value_until_the_text_has_jumped(marked):
    if "30" in marked:      # three bytes, not a number: no fork after them, and none counted
        marked = "| 11 -8 -> 30 -1 -> 2|"
    ids, expected = [], []
    for part in marked.split("|", 1)[1].replace("<|", "<!").replace("|>", "!>").split("|"):
        part = part.replace("<!", "<|").replace("!>", "|>")
        words = TOY.tokenizer.encode(part, allowed_special="all")
        expected.append(len(ids))
        ids += words
    assert len(ids) <= 22
    ids += [TOY.eos_id] * (22 - len(ids))
    found = TOY.forks(torch.tensor([ids]))[0]
    assert found.nonzero()[:, 0].tolist() == [i for i in expected if i < 22]
    assert found.tolist() == forks_by_definition(ids)


def test_forks_agree_with_their_definition_on_any_soup_of_tokens():
    rng = random.Random(0)
    common = [TOY.arrow_id] * 6 + TOY.number_ids.tolist()[:8]
    rare = [TOY.hash_id, TOY.eos_id, TOY.mask_id, TOY.tokenizer.encode_single_token(" -6"), 65]
    soups = [[rng.choice(common if rng.random() < rng.choice([0.8, 0.97]) else rare)
              for _ in range(22)] for _ in range(400)]
    expected = [forks_by_definition(ids) for ids in soups]
    assert TOY.forks(torch.tensor(soups)).tolist() == expected
    assert max(sum(row) for row in expected) == 6       # some soup gets as far as the last fork


def test_fork_position_is_where_forks_says_for_every_number_of_written_steps():
    for p in EVERY[::200]:
        for n in range(7):
            forks = TOY.forks(TOY.completions([TOY.solution(p, n)]))[0].nonzero()[:, 0].tolist()
            assert forks == [TOY.fork_position(s) for s in range(min(n + 1, 6))]


# ------------------------------------------------------------------------------------------- BPE

def test_the_most_frequent_pair_is_fused_first_and_words_never_grow_together():
    # ab x 3, abc x 2: (a, b) stands 5 times, then (ab, c) twice. "b a" across words never counts.
    assert train_bpe("ab ab ab abc abc c", 10, r"\w+") == [b"ab", b"abc"]


def test_overlapping_pairs_are_fused_from_left_to_right():
    # (a, a) four times: "aaabdaaabac" -> aa a b d aa a b a c. Then (aa, a) and (a, b) stand twice
    # each, and either way the third piece is aaab; then nothing comes twice.
    pieces = train_bpe("aaabdaaabac", 10, r"\w+")
    assert pieces[0] == b"aa" and pieces[2] == b"aaab" and len(pieces) == 3
    # aaaaa holds (a, a) four times but only two of them can be fused: aa aa a.
    assert train_bpe("aaaaa", 10, r"\w+")[:2] == [b"aa"]


def test_nothing_is_fused_that_comes_once_and_never_more_than_asked():
    assert train_bpe("abcdefg", 10, r"\w+") == []
    assert train_bpe("", 10) == []
    assert len(train_bpe(SNIPPET, 7)) == 7
    assert train_bpe(SNIPPET, 7) == train_bpe(SNIPPET, 60)[:7]


def fuse(parts, pair):
    """Every occurrence of the pair, left to right."""
    out, i = [], 0
    while i < len(parts):
        if tuple(parts[i:i + 2]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


@pytest.mark.parametrize("seed", range(5))
def test_every_merge_is_of_a_pair_that_is_most_frequent_when_counted_afresh(seed):
    # The counts are kept up to date as words change; here they are counted from nothing each time.
    rng = random.Random(seed)
    corpus = " ".join("".join(rng.choices("aabc", k=rng.randint(1, 9))) for _ in range(60))
    words = [[bytes([b]) for b in word.encode()] for word in re.findall(GSM8K_PATTERN, corpus)]
    pieces = train_bpe(corpus, 40)
    for piece in pieces:
        counts = Counter(pair for word in words for pair in pairs_of(word))
        most = max(counts.values())
        pair = next(p for p in counts if p[0] + p[1] == piece and counts[p] == most)
        assert most >= 2
        words = [fuse(word, pair) for word in words]
    rest = Counter(pair for word in words for pair in pairs_of(word))
    assert len(pieces) == 40 or max(rest.values(), default=0) < 2


def pairs_of(word):
    return list(zip(word, word[1:]))


def test_the_vocabulary_does_not_depend_on_the_process():
    code = ("import sys; from data import train_bpe; "
            "print(train_bpe(sys.stdin.buffer.read().decode(), 60))")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True,
                         input=SNIPPET.encode(), env={**os.environ, "PYTHONHASHSEED": "321"}).stdout
    assert out.decode().strip() == repr(train_bpe(SNIPPET, 60))


def test_tiktoken_cuts_text_as_the_merges_do_in_their_order():
    pieces = train_bpe(SNIPPET, 60)
    for text in (SNIPPET, "She eats eggs all day; the ducks sell 3 farmers.", "’’ ddaayy"):
        expected = []
        for word in re.findall(GSM8K_PATTERN, text):
            parts = [bytes([b]) for b in word.encode()]
            for piece in pieces:    # in order: fuse whatever makes this piece
                for pair in [p for p in pairs_of(parts) if p[0] + p[1] == piece]:
                    parts = fuse(parts, pair)
            expected += parts
        found = BPE.decode_tokens_bytes(BPE.encode_ordinary(text))
        assert found == expected
    assert len(BPE.encode_ordinary(SNIPPET)) < len(SNIPPET.encode()) / 2    # and something fused


def test_bpe_writes_every_digit_as_its_own_token():
    # Arithmetic is learned digit by digit, however often a number came in the training text.
    pieces = train_bpe("1234 1234 1234 eggs1234 " * 9, 100)
    assert not any(re.search(rb"\d.|.\d", piece, re.DOTALL) for piece in pieces)


# ----------------------------------------------------------------------------------------- files

def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_about(names, n):
    return [{"question": f"{name} has {i} eggs and buys {i} more. How many eggs?",
             "answer": f"{name} has {i} + {i} = <<{i}+{i}={2 * i}>>{2 * i} eggs.\n#### {2 * i}"}
            for i, name in ((i, names[i % len(names)]) for i in range(n))]


def test_the_calculator_annotations_are_removed_and_nothing_else(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{
        "question": "Is 2 < 3?",
        "answer": "She has 2*3=<<2*3=6>>6, $<<6*1.5=9.0>>9.\n#### 1,009"}])
    assert read_jsonl(path) == [{"question": "Is 2 < 3?", "answer": "1009",
                                 "solution": "She has 2*3=6, $9.\n#### 1,009"}]


@needs_gsm8k
def test_gsm8ks_own_files_are_read_whole():
    for path, n in zip(GSM8K_FILES, (1319, 7473)):
        problems = read_jsonl(path)
        assert len(problems) == n
        assert not any("<<" in p["solution"] or ">>" in p["solution"] for p in problems)


GOOD = b'{"question": "How many?", "answer": "#### 5"}\n'


@pytest.mark.parametrize("bad", [
    b"not json\n", b"\n", b"[]\n", b"5\n", b"null\n", b'"text"\n', b'{"question": "How many?"',
    b'["question", "answer"]\n', b'{"question": "How many?"}\n', b'{"answer": "#### 5"}\n',
    b'{"question": "How many?", "answer": "five"}\n',               # no ####
    b'{"question": "How many?", "answer": "####5"}\n',
    b'{"question": "How many?", "answer": "#### five"}\n',
    b'{"question": "How many?", "answer": ""}\n',
    b'{"question": "How many?", "answer": 5}\n', b'{"question": "How many?", "answer": null}\n',
    b'{"question": 5, "answer": "#### 5"}\n', b'{"question": "", "answer": "#### 5"}\n',
    b'{"question": ["x"], "answer": "#### 5"}\n',
    b'{"question": "\xff", "answer": "#### 5"}\n',                  # not UTF-8
    b"[" * 20_000 + b"\n",                                          # nested past any recursion
    b'\xff\xfe{\x00}\x00\n',                                        # UTF-16
    # Half of a surrogate pair is valid JSON, but no text: later, nobody could tell file and line.
    b'{"question": "\\ud800", "answer": "#### 5"}\n',
], ids=lambda bad: repr(bad[:40]))
def test_a_bad_row_is_refused_with_its_file_and_line(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD * 2 + bad + GOOD)
    with pytest.raises(ValueError) as error:
        read_jsonl(path)
    message = str(error.value)
    assert str(path) in message and "line 3" in message and "\n" not in message
    assert '"question"' in message and "####" in message        # what was expected


def test_an_empty_file_is_refused_and_a_missing_one_is_an_oserror(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_jsonl(path)
    with pytest.raises(OSError):
        read_jsonl(tmp_path / "nowhere.jsonl")


def test_a_last_line_without_its_newline_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.replace(b"\n", b"\r\n") + GOOD.rstrip())
    assert len(read_jsonl(path)) == 2


NAMES = ["Ada", "Zoë", "Li"]


def gsm8k(tmp_path, rows, test_rows=None, prompt_length=64, completion_length=48):
    test_rows = test_rows or rows_about(["Otto"], 5)
    return GSM8K.from_files(write_rows(tmp_path / "train.jsonl", rows),
                            write_rows(tmp_path / "test.jsonl", test_rows), 50, prompt_length,
                            completion_length)


def questions(task, split):
    return [p["question"].strip() for p in task.problems(split, 0, task.size(split))]


def test_validation_rows_are_held_out_of_training_by_their_question_alone(tmp_path):
    rows = rows_about(NAMES, 300)
    task = gsm8k(tmp_path, rows)
    train, validation = (set(questions(task, split)) for split in ("train", "validation"))
    assert not train & validation
    assert train | validation == {row["question"] for row in rows}
    assert 3 <= len(validation) <= 35       # one in 20 of 300, within 4.5 sigma of the binomial
    # Where a row goes does not hang on the others, nor on the order of the file, nor its answer.
    other = [{**row, "answer": "#### 1"} for row in reversed(rows[::2])]
    assert set(questions(gsm8k(tmp_path, other), "validation")) == validation & {
        row["question"] for row in other}


def test_a_row_that_comes_twice_in_the_training_file_stays_on_one_side(tmp_path):
    task = gsm8k(tmp_path, rows_about(NAMES, 200) * 2)
    assert not set(questions(task, "train")) & set(questions(task, "validation"))
    assert task.size("train") + task.size("validation") == 400


def test_nothing_of_the_validation_and_test_rows_goes_into_the_vocabulary(tmp_path):
    rows = rows_about(NAMES, 200)
    held_out = set(questions(gsm8k(tmp_path, rows), "validation"))
    # The held-out rows and the test get a word of their own, often: nothing learns it.
    changed = [{**row, "answer": "qqqqqqqq " * 50 + row["answer"]} if row["question"] in held_out
               else row for row in rows]
    test = [{"question": "zzzzzzzz " * 5, "answer": "#### 5"}]
    pieces = gsm8k(tmp_path, changed, test).tokenizer.token_byte_values()
    assert held_out and not any(b"qq" in piece or b"zz" in piece for piece in pieces)


def test_a_test_question_that_stands_in_the_training_file_is_refused(tmp_path):
    rows = rows_about(NAMES, 60)
    for shared in rows[0], rows[-1], rows[31]:      # held out for validation or not
        with pytest.raises(ValueError, match=r"^1 question.*test\.jsonl.*train\.jsonl"):
            gsm8k(tmp_path, rows, [*rows_about(["Otto"], 3), {**shared, "answer": "#### 77"}])


def test_rows_that_are_too_long_are_left_out_whole_and_counted(tmp_path):
    rows = rows_about(NAMES, 100)
    long = "7" * 100        # 100 tokens in any vocabulary: digits never fuse
    rows += [{"question": f"{long} {i}?", "answer": "#### 1"} for i in range(40)]
    rows += [{"question": f"Why {i}?", "answer": f"{long}\n#### 1"} for i in range(30)]
    test = [{"question": "Otto?", "answer": f"{long}\n#### 1"},     # its solution is never read
            {"question": long, "answer": "#### 1"}]
    task = gsm8k(tmp_path, rows, test)
    assert task.too_long["train"] + task.too_long["validation"] == 70
    assert task.size("train") + task.size("validation") == 100
    assert task.too_long["test"] == 1 and questions(task, "test") == ["Otto?"]
    kept = task.problems("train", 0, task.size("train"))
    assert task.completions([p["solution"] for p in kept])[:, -1].eq(task.eos_id).all()
    assert task.prompts([p["question"] for p in kept]).shape[1] == 64


def test_a_solution_must_leave_room_for_its_end_of_text(tmp_path):
    # Solutions of every length around the limit of 48 tokens: no model could end the longest.
    rows = [{"question": f"Why {i}?", "answer": "7" * i + "\n#### 1"} for i in range(36, 56)]
    task = gsm8k(tmp_path, rows * 3)
    lengths = [len(task.tokenizer.encode_ordinary(r["answer"])) for r in rows]
    assert min(lengths) < 47 and 48 in lengths and max(lengths) > 48
    kept = set(questions(task, "train")) | set(questions(task, "validation"))
    assert kept == {r["question"] for r, n in zip(rows, lengths) if n <= 47}


def test_an_index_past_the_last_row_starts_over(tmp_path):
    task = gsm8k(tmp_path, rows_about(NAMES, 100))
    n = task.size("train")
    assert task.problem("train", n + 3) == task.problem("train", 3) != task.problem("train", 4)


def test_a_described_task_comes_back_and_reads_and_writes_the_same(tmp_path):
    task = gsm8k(tmp_path, rows_about(NAMES, 100))
    description = json.loads(json.dumps(task.describe()))       # plain values, as in a checkpoint
    again = load_task(description)
    texts = ["Zoë has 3 eggs and buys more.\n#### 6", SNIPPET, MASK]
    for text in texts:
        ids = task.tokenizer.encode_ordinary(text)
        assert again.tokenizer.encode_ordinary(text) == ids
        assert again.text(ids) == text
    assert (again.mask_id, again.eos_id) == (task.mask_id, task.eos_id)
    assert (again.prompt_length, again.completion_length) == (64, 48)
    assert again.describe() == task.describe()
    with pytest.raises(ValueError, match="--data"):      # the checkpoint holds no problems
        again.problem("test", 0)
    again = load_task(description, tmp_path / "test.jsonl")
    assert questions(again, "test") == questions(task, "test")


def test_the_vocabulary_is_kept_in_tiktokens_own_file_format(tmp_path):
    from tiktoken.load import load_tiktoken_bpe
    task = gsm8k(tmp_path, rows_about(NAMES, 100))
    path = tmp_path / "vocabulary.tiktoken"
    path.write_text(task.describe()["vocabulary"], encoding="utf-8")
    ranks = load_tiktoken_bpe(str(path))
    assert len(ranks) == task.tokenizer.n_vocab - 258 > 20
    for piece, rank in ranks.items():
        assert task.tokenizer.encode_single_token(piece) == rank


def test_the_toys_description_keeps_its_rates():
    again = load_task(json.loads(json.dumps(Toy(0.2, 0.4).describe())))
    assert again.problems("test", 0, 20) == Toy(0.2, 0.4).problems("test", 0, 20)


def test_a_task_of_ones_own_is_refused_by_name():
    with pytest.raises(ValueError, match="copy"):
        load_task({"name": "copy"})
