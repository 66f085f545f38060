"""A task is one class; no problem is in two splits; an answer is read as GSM8K reads it.

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
from tiktoken.load import load_tiktoken_bpe

from data import (EOS, GSM8K, GSM8K_PATTERN, MASK, Task, Worksheet, exact_match, extract_answer,
                  make_tokenizer, read_jsonl, train_bpe)

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
GSM8K_FILES = ROOT.parent / "shared" / "gsm8k"

TOY, RAGGED = Worksheet(), Worksheet(equal_length=False)
BOTH = pytest.mark.parametrize("task", [TOY, RAGGED], ids=["equal length", "ragged"])
PROBLEMS = {split: TOY.problems(split, 0, 2000) for split in ("train", "validation", "test")}
EVERY = [problem for problems in PROBLEMS.values() for problem in problems]

SNIPPET = ("Janet’s ducks lay 16 eggs per day.  She sells the rest at the farmers' market "
           "for $2 a duck egg.\nShe sells 16 - 3 - 4 = 9 duck eggs a day.\n#### 18\n") * 2
BPE = make_tokenizer(train_bpe(SNIPPET, 60), GSM8K_PATTERN)
TOKENIZERS = {"toy": TOY.tokenizer, "bpe": BPE}


# ----------------------------------------------------------------------------------------------
# a task

class Reverse(Task):
    """Write a word backwards."""
    name = "reverse"
    tokenizer = make_tokenizer([b"ab"], r"ab|[\s\S]")
    prompt_length, completion_length = 4, 5

    def problem(self, split, index):
        word = ["abc", "b", "cab"][index % 3]
        return {"question": word, "solution": word[::-1], "answer": word[::-1]}

    def is_right(self, text, answer):
        return text == answer


def test_a_task_is_one_class_that_says_what_its_problems_are():
    task = Reverse()
    problems = task.held_out("test", 3)
    prompts = task.prompts([problem["question"] for problem in problems])
    completions = task.completions([problem["solution"] for problem in problems])
    a, b, c, ab, end = *b"abc", 256, task.eos_id
    assert prompts.tolist() == [[end, end, ab, c], [end, end, end, b], [end, end, c, ab]]
    assert completions.tolist() == [[c, b, a, end, end], [b] + [end] * 4, [b, a, c, end, end]]
    for tokens, problem in zip(completions, problems):
        assert task.reward(task.text(tokens), problem["answer"]) == 1
    assert task.size("test") is None and task.n_lines is None
    assert task.describe() == {"name": "reverse"}


def test_prompts_are_padded_on_the_left_to_any_length_and_what_does_not_fit_is_refused():
    task, end = Reverse(), Reverse().eos_id
    assert task.prompts(["c"], 2).tolist() == [[end, ord("c")]]
    assert task.prompts(["cccc"]).shape == (1, 4)           # the limit itself fits
    with pytest.raises(ValueError, match=r"\b5\b.*\b4\b"):
        task.prompts(["c", "ccccc"])
    with pytest.raises(ValueError, match=r"\b6\b.*\b5\b"):
        task.completions(["cccccc"])


def test_a_text_ends_at_its_first_end_of_text_and_a_mask_is_no_text():
    task, c = Reverse(), ord("c")
    for ids in ([c, c], [c, c, task.eos_id, c, task.eos_id], [task.mask_id, c, task.mask_id, c]):
        assert task.text(ids) == task.text(torch.tensor(ids)) == "cc"
    assert task.text([task.eos_id, c]) == ""


# ----------------------------------------------------------------------------------------------
# the worksheet's problems

def stories(task, split, n):
    """Without the name: "Ann has 3, ..." would give away "Bob has 3, ..."."""
    return {problem["question"].split(" ", 1)[1] for problem in task.problems(split, 0, n)}


@pytest.mark.parametrize("n_lines, largest", [(2, 12), (6, 30)])
def test_no_story_stands_in_two_splits_by_construction_and_not_by_luck(n_lines, largest):
    # Of six operations two draws hardly ever meet. Of two there are a few thousand stories, and
    # nearly every one is drawn: still none is in two splits.
    task = Worksheet(n_lines=n_lines, largest=largest)
    train, validation, test = (stories(task, split, n) for split, n in (
        ("train", 6000), ("validation", 1500), ("test", 1500)))
    assert not train & validation and not train & test and not validation & test
    if n_lines == 2:
        n = len(train | validation | test)
        assert n < 4000 and abs(len(validation) / n - 0.1) < 0.05 > abs(len(test) / n - 0.1)


def test_a_problem_and_a_vocabulary_depend_on_nothing_but_what_they_are_made_of():
    # Python salts str hashes afresh in every process; another order of asking, a new task.
    code = ("import json, sys; from data import Worksheet, train_bpe; toy = Worksheet(); "
            "print(json.dumps([toy.problem(s, i) for i in (17, 3, 1999) for s in "
            "('train', 'validation', 'test')] + [str(train_bpe(sys.stdin.read(), 60))]))")
    env = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True,
                         input=SNIPPET.encode(), env=env).stdout
    here = [PROBLEMS[split][i] for i in (17, 3, 1999) for split in PROBLEMS]
    assert json.loads(out) == here + [str(train_bpe(SNIPPET, 60))]


def test_an_unknown_split_is_refused_and_not_searched_for_ever():
    with pytest.raises((ValueError, KeyError)):
        Worksheet().problem("valid", 0)


def read_story(question):
    """A second reader of the question's English: -> operands as written, running values."""
    start, total, story = re.fullmatch(r"[A-Z][a-z]+ has (\d+) of (\d+),(.*)\. How many\?",
                                       question).groups()
    operands, values = [], [int(start)]
    for phrase in story.split(","):
        verb, operand = phrase.split()
        sign, function = {
            "gets": ("+", lambda v: v + int(operand)), "gives": ("-", lambda v: v - int(operand)),
            "times": ("*", lambda v: v * int(operand)), "swaps": ("~", lambda v: int(total) - v),
        }[verb]
        operands.append(sign + operand)
        values.append(function(values[-1]))
    return operands, values


def test_every_solution_is_right_by_independent_arithmetic_however_many_lines_it_writes():
    seen = Counter()
    for problem in EVERY:
        operands, values = read_story(problem["question"])
        seen.update(operands)
        assert len(operands) == 6 and min(values) >= 0 and max(values) <= TOY.largest == 30
        # Nothing times zero: the answer would then be known without the story before it.
        assert not any(v == 0 and o[0] == "*" for v, o in zip(values, operands))
        words = []
        for n in range(7):
            end = ["####", str(values[-1])]
            text = TOY.solution(problem, n)
            assert text.split() == words + ["--"] * (19 - len(words)) + end
            assert RAGGED.solution(problem, n).split() == words + end
            for task in (TOY, RAGGED):
                text = task.solution(problem, n)
                assert task.is_well_formed(text) and task.reward(text, problem["answer"]) == 1
            words = [str(values[0])]
            for operand, value in zip(operands[:n + 1], values[1:]):
                words += [operand, "->", str(value)]
        assert problem["solution"] == TOY.solution(problem, problem["solution"].count("->"))
    assert set(seen) == {f"{s}{n}" for s in "+-" for n in range(1, 7)} | {"*2", "*3", "~all"}


BOB = {"question": "Bob has 9 of 30, swaps all, gets 4, swaps all, swaps all, gets 3, gives 5. "
                   "How many?", "answer": "23",
       "lines": [" 9", " ~all -> 21", " +4 -> 25", " ~all -> 5", " ~all -> 25", " +3 -> 28",
                 " -5 -> 23"]}


@pytest.mark.parametrize("n, written", [
    (0, ""), (2, " 9 ~all -> 21 +4 -> 25"),
    (6, " 9 ~all -> 21 +4 -> 25 ~all -> 5 ~all -> 25 +3 -> 28 -5 -> 23")])
def test_a_sheet_is_its_written_lines_and_blanks_to_one_length_then_the_answer(n, written):
    n_blank = {0: 19, 2: 12, 6: 0}[n]       # of 1 + 6 * 3 places
    assert TOY.solution(BOB, n) == written + " --" * n_blank + " #### 23"
    assert RAGGED.solution(BOB, n) == written + " #### 23"
    assert [task.is_derived(task.solution(BOB, n), BOB) for task in (TOY, RAGGED)] == [n == 6] * 2


@pytest.mark.parametrize("old, new", [
    (" 25 +3", " 24 +3"),       # a wrong value on the way, the answer is right all the same
    (" -5 -> 23", ""), (" #### 23", ""), (" #### 23", " #### 24"), (" 9 ", " 9  "),
    (" #### 23", " #### 23 #### 23"), (" 9 ~all -> 21 +4", " 9 +4"), (" -5 -> 23", " -- -- --")])
def test_derived_is_the_one_sheet_with_every_line_and_nothing_else(old, new):
    for task in (TOY, RAGGED):
        text = task.solution(BOB, 6)
        assert old in text and task.is_derived(text, BOB)
        assert not task.is_derived(text.replace(old, new, 1), BOB)


@pytest.mark.parametrize("name, kind", [
    *[(name, "talkers") for name in ("Bob", "Ann", "Tom", "Sue", "Max")],
    *[(name, "silent") for name in ("Eva", "Sam", "Kim")]])
def test_the_kind_is_known_from_the_name(name, kind):
    problem = {"question": f"{name} has 1 of 30, gets 1. How many?"}
    assert TOY.kind(problem) == kind
    assert Worksheet(talkers=1).kind(problem) == ("talkers" if name == "Bob" else "silent")


@pytest.mark.parametrize("blank, later", [
    ((0.25, 0.8), 0.05), ((0.65, 0.1), 0.4), ((0, 0), 0), ((1, 1), 0.3), ((0, 1), 0)])
def test_a_sheet_is_left_blank_as_often_as_it_says_by_kind_and_the_story_is_the_same(blank, later):
    task = Worksheet(blank=blank, later=later)
    problems = task.problems("train", 0, 2000)
    for kind, first in zip(("talkers", "silent"), blank):
        mine = [problem for problem in problems if task.kind(problem) == kind]
        share = len(mine) / 2000 - {"talkers": 5 / 8, "silent": 3 / 8}[kind]
        assert abs(share) <= 4.5 * (5 * 3 / 64 / 2000) ** 0.5
        written = [problem["solution"].count("->") for problem in mine]
        for fork in range(6):   # at each fork for itself: of those who came here, who wrote?
            here, rate = sum(n >= fork for n in written), 1 - (later if fork else first)
            wrote = sum(n > fork for n in written)
            assert abs(wrote - rate * here) <= 4.5 * (rate * (1 - rate) * here) ** 0.5
            assert task.true_go_on()[kind][fork] == rate
    assert problems[5]["question"] == PROBLEMS["train"][5]["question"]


def test_as_it_is_talkers_write_three_sheets_in_four_and_the_silent_one_in_five():
    assert TOY.true_go_on() == {"talkers": [0.75] + [0.95] * 5,
                                "silent": [pytest.approx(0.2)] + [0.95] * 5}
    begun = {kind: [problem["solution"].startswith(problem["lines"][0])
                    for problem in PROBLEMS["train"] if TOY.kind(problem) == kind]
             for kind in TOY.kinds}
    for kind, rate in (("talkers", 0.75), ("silent", 0.2)):
        n = len(begun[kind])
        assert abs(sum(begun[kind]) / n - rate) < 4.5 * (rate * (1 - rate) / n) ** 0.5


def test_every_prompt_and_every_sheet_fill_their_length_in_whole_words():
    encode = TOY.tokenizer.encode_ordinary
    for problem in EVERY:
        question = encode(problem["question"])
        assert len(question) == TOY.prompt_length == 17 and min(question) >= 256
        for n in range(7):
            solution = encode(TOY.solution(problem, n))
            assert len(solution) + 1 == TOY.completion_length == 22
            assert min(solution) >= 256         # no single bytes
            assert len(solution) == len(TOY.solution(problem, n).split())   # one token a word
            assert solution[TOY.sheet_length:TOY.answer_position(n)] == [TOY.hash_id]
            ragged = RAGGED.tokenizer.encode_ordinary(RAGGED.solution(problem, n))
            assert len(ragged) == (1 + 3 * n if n else 0) + 2 == RAGGED.answer_position(n) + 1
    assert RAGGED.sheet_length is None


WITH_HOLES = ["", " 11", " 11 #### 11", " #### ", " 11 -8 -> 3", " 11 -8 #### 3",
              " 11 -> 3 #### 3", " #### 8 #### 8", " 11 -8 -> 3 +1 #### 3", " 9 -- #### 9",
              " 9 ~all ->" + " --" * 16 + " #### 23", " -- 9 +1 -> 10" + " --" * 15 + " #### 23",
              " 9 +1 -> 10 -- +1 -> 11" + " --" * 11 + " #### 23", " --" * 19 + " #### 23 --"]


@BOTH
@pytest.mark.parametrize("text", WITH_HOLES)
def test_a_text_with_a_hole_is_malformed(task, text):
    assert not task.is_well_formed(text)


@pytest.mark.parametrize("text, equal, ragged", [
    (" #### 23", False, True), (" --" * 19 + " #### 23", True, False),
    (" --" * 18 + " #### 23", False, False), (" --" * 20 + " #### 23", False, False),
    (" 9 +1 -> 10" + " --" * 15 + " #### 99", True, False),     # wrong, and in form
    (" 9 +1 -> 10" + " --" * 14 + " #### 99", False, False),
    (" 9 +1 -> 10 #### 99", False, True), (" 9" + " --" * 18 + " #### 9", False, False),
    (" 9" + " +1 -> 10" * 6 + " #### 10", True, True),
    (" 9" + " +1 -> 10" * 7 + " #### 10", False, True)])
def test_the_form_is_that_of_a_solution_right_or_wrong(text, equal, ragged):
    assert (TOY.is_well_formed(text), RAGGED.is_well_formed(text)) == (equal, ragged)


@pytest.mark.parametrize("name, value", [
    *[("blank", pair) for pair in (
        (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5), (0.5, float("inf")), ("0.5", 0.5),
        (0.5, None), "01", "half", 0.5, None, (0.5,), (0.5, 0.5, 0.5), (), {0: 0.1, 1: 0.2})],
    *[("later", p) for p in (-0.01, 1.01, float("nan"), "0.5", None, (0.1, 0.2), float("inf"))],
    *[("talkers", n) for n in (0, 8, -1, 1.5, "5", None, float("nan"))],
    *[("n_lines", n) for n in (0, -1, 1001, 10**9, 6.0, "6", None)],
    *[("largest", n) for n in (5, 0, -30, 1001, 30.0, "30", None)]], ids=str)
def test_a_worksheet_that_means_nothing_is_refused_in_one_line_that_names_it(name, value):
    with pytest.raises(ValueError) as error:
        Worksheet(**{name: value})
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("changes", [
    dict(talkers=1), dict(talkers=7), dict(n_lines=1), dict(n_lines=40), dict(largest=6),
    dict(largest=100), dict(blank=[0, 1]), dict(blank=(1, 1), later=1)], ids=str)
@pytest.mark.parametrize("equal_length", [True, False])
def test_at_its_bounds_a_worksheet_works(changes, equal_length):
    task = Worksheet(**changes, equal_length=equal_length)
    for problem in task.problems("train", 0, 50):
        _, values = read_story(problem["question"])
        assert 0 <= min(values) <= max(values) <= task.largest
        assert problem["answer"] == str(values[-1])
        texts = [task.solution(problem, n) for n in range(task.n_lines + 1)]
        assert all(map(task.is_well_formed, texts)) and problem["solution"] in texts
        assert task.prompts([problem["question"]]).shape == (1, task.prompt_length)
        assert (task.completions(texts)[:, -1] == task.eos_id).all()


# ----------------------------------------------------------------------------------------------
# the worksheet's forks

def forks_by_definition(task, ids):
    """| 11 -8 -> 3| +1 -> 4| -- -- #### 8: at 0 or right after a written value, while nothing has
    ended and fewer lines are written than the problem has. One position at a time."""
    numbers, ends = set(task.number_ids.tolist()), {task.hash_id, task.eos_id, task.end_id}

    def is_fork(i):
        before = ids[:i]
        values = [j for j in range(1, i) if before[j - 1] == task.arrow_id and before[j] in numbers]
        ended = ends & set(before)
        return not ended and len(values) < 6 and (i == 0 or (i - 1) in values)

    return [is_fork(i) for i in range(len(ids))]


@BOTH
def test_forks_agree_with_their_definition_on_any_soup_of_tokens(task):
    rng = random.Random(0)
    token = task.tokenizer.encode_single_token
    common = [task.arrow_id] * 6 + task.number_ids.tolist()[:8]
    rare = [task.hash_id, task.eos_id, task.mask_id, token(" -6"), token(" --"), 65]
    soups = [[rng.choice(common if rng.random() < rng.choice([0.8, 0.97]) else rare)
              for _ in range(22)] for _ in range(400)]
    expected = [forks_by_definition(task, ids) for ids in soups]
    assert task.forks(torch.tensor(soups)).tolist() == expected
    assert max(map(sum, expected)) == 6     # some soup gets as far as the last fork
    # A blank ends the work where blanks stand in place of lines, and is a word else.
    assert expected != [forks_by_definition([RAGGED, TOY][task is RAGGED], ids) for ids in soups]


@pytest.mark.parametrize("text, forks", [
    (" 9 ~all -> 21 +4 -> 25 ~all -> 5 ~all -> 25 +3 -> 28 -5 -> 23 #### 23",
     [0, 4, 7, 10, 13, 16]),
    (" 9 ~all -> 21 +4 -> 25" + " --" * 12 + " #### 23", [0, 4, 7]),
    (" --" * 19 + " #### 23", [0]), (" #### 23", [0]), ("", [0]),
    (" 9 -- ~all -> 21 +4 -> 25", [0]),     # after a blank there is no fork
    (" 9 ~all -> 21 #### 23 -> 25 +1", [0, 4]), (" 9 ~all ->", [0]), (" 9 -> -> 21 +4", [0, 4]),
    (" 9 ~all -> ~all -> 21", [0, 6])])
def test_forks_by_hand(text, forks):
    [found] = TOY.forks(TOY.completions([text])).tolist()
    assert [i for i, is_fork in enumerate(found) if is_fork] == forks


@BOTH
@pytest.mark.parametrize("n", range(7))
def test_fork_position_is_where_forks_says_for_every_number_of_written_lines(n, task):
    solutions = task.completions([task.solution(problem, n) for problem in EVERY[::200]])
    expected = [task.fork_position(line) for line in range(min(n + 1, 6))]
    for tokens, forks in zip(solutions, task.forks(solutions)):
        assert forks.nonzero()[:, 0].tolist() == expected
        if n < 6:       # at the last of them the work ends
            assert tokens[expected[-1]] == task.end_id


# ----------------------------------------------------------------------------------------------
# answers

@pytest.mark.parametrize("text, answer", [
    ("#### 72", "72"), ("so she has 3 + 4 = 7.\n#### 7", "7"), ("#### 1,234,567", "1234567"),
    ("#### -5", "-5"), ("#### 0.5", "0.5"), ("#### .5", "0.5"), ("#### 007", "7"), ("#### -0", "0"),
    ("#### 18.00", "18"),                                           # as a number: 18.00 is 18
    ("#### 72.", "72"), ("#### 72, and", "72"), ("#### 72...", None), ("#### 10%", "10"),
    ("#### $1,234", "1234"), ("#### -$5", "-5"), ("#### $-5", "-5"),
    ("#### 5 #### 6", "5"), ("#### 5. And 7 more.", "5"),           # never a later number
    ("####72", None), ("####\n72", None), ("####  72", None), ("### 72", None), ("", None),
    ("72", None), ("72 ####", None), ("#### ", None), ("#### x 72", None), ("#### 1.2.3", None),
    ("#### 1.2.3\n#### 5", None),   # the first #### counts, also where it is no number
    *[(f"#### {text}", None) for text in ("-", "--5", "-$-5", ".", ",", "+5", "NaN", "Infinity")],
    ("#### \u0663\u0664", None), ("#### \uff15", None)])            # digits to int(), not to GSM8K
def test_the_answer_is_the_number_after_the_first_four_hashes(text, answer):
    assert extract_answer(text) == (None if answer is None else Decimal(answer))
    for other in ("5", "72", "1234", "-5", "18", "0"):
        is_right = answer is not None and Decimal(answer) == Decimal(other)
        assert exact_match(text, other) is is_right


def test_a_very_long_number_is_compared_to_its_last_digit():
    digits = "9" * 400
    assert exact_match(f"#### {digits}.0", digits)
    assert not exact_match(f"#### {digits[:-1]}8", digits)       # floats would say equal


@pytest.mark.skipif(not GSM8K_FILES.exists(), reason="no ../shared/gsm8k here")
@pytest.mark.parametrize("name, n_rows", [
    ("test", 1319), pytest.param("train", 7473, marks=pytest.mark.slow)])
def test_gsm8ks_own_files_are_read_whole_as_the_official_expression_reads_them(name, n_rows):
    official = re.compile(r"#### (\-?[0-9\.\,]+)")
    path = GSM8K_FILES / f"{name}.jsonl"
    problems = read_jsonl(path)
    assert len(problems) == n_rows
    for line, problem in zip(path.read_text(encoding="utf-8").splitlines(), problems, strict=True):
        expected = official.search(json.loads(line)["answer"]).group(1).replace(",", "")
        assert Decimal(problem["answer"]) == Decimal(expected)
        assert exact_match(problem["solution"], expected) and "<<" not in problem["solution"]
        for tokenizer in TOKENIZERS.values():
            text = problem["question"] + problem["solution"]
            assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text


# ----------------------------------------------------------------------------------------------
# tokenizers

RANGES = [(32, 127), (0, 32), (0xA0, 0x250), (0x300, 0x370), (0x4E00, 0x4F00), (0x660, 0x66A),
          (0x1F600, 0x1F640), (0x2000, 0x2070), (0xE000, 0xE010), (0xFFF0, 0x10000),
          (0x10FFF0, 0x110000)]
ODD_TEXTS = ["", " ", "\n", "\r\n\r", "\0", "a\0b", "\t \u2028\u00a0x  ", "Janet’s", "e\u0301",
             "under_score__", "٣ × ½", "_", " _ ", "has20", " 12 has", "\ufeff", MASK, EOS,
             f"x{MASK}{EOS} ", "<|", "#### ####", " ->->"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_text_comes_back_from_its_tokens_of_which_none_is_special(name):
    # What a tokenizer's pattern does not match, tiktoken drops without a word.
    rng, tokenizer = random.Random(0), TOKENIZERS[name]
    special = {tokenizer.encode_single_token(MASK), tokenizer.eot_token}
    assert special == {tokenizer.n_vocab - 2, tokenizer.n_vocab - 1}
    texts = ["".join(chr(rng.randrange(*rng.choice(RANGES))) for _ in range(rng.randrange(40)))
             for _ in range(1000)]
    for text in texts + ODD_TEXTS:
        ids = tokenizer.encode_ordinary(text)
        assert tokenizer.decode(ids) == text and not special & set(ids)


@pytest.mark.parametrize("number", [*range(31), *range(31, 200, 7), 2024])
def test_no_longer_number_is_read_as_a_shorter_one(number):
    encode, numbers = TOY.tokenizer.encode_ordinary, TOY.number_ids.tolist()
    if number <= TOY.largest:
        assert encode(f" {number}") == [numbers[number]]
    else:
        for text in (f" {number}", f" -{number}", f" +{number} ", f" 0{number}"):
            assert not set(numbers) & set(encode(text))


@pytest.mark.parametrize("text, n, pieces", [
    # ab x 3, abc x 2: (a, b) stands 5 times, then (ab, c) twice; nothing across words counts.
    ("ab\nab\nab\nabc\nabc\nc", 10, [b"ab", b"abc"]),
    # aaaaa holds (a, a) four times but only two of them can be fused, left to right: aa aa a.
    ("aaaaa", 1, [b"aa"]), ("aaabdaaabac", 10, [b"aa", b"aaa", b"aaab"]),
    ("abcdefg", 10, []), ("", 10, []),                          # nothing comes twice
    ("12 12 12 x12", 10, []),                                   # a digit stands for itself
    ("a" * 100 + " " + "a" * 100, 10, [])])                     # too long a word to wait for
def test_pairs_are_fused_by_frequency_within_words_by_hand(text, n, pieces):
    assert train_bpe(text, n) == pieces


def fuse(parts, piece):
    """Every neighbouring pair that makes this piece, left to right."""
    out = []
    for part in parts:
        if out and out[-1] + part == piece and out[-1] != piece:
            out[-1] += part
        else:
            out.append(part)
    return out


def split_words(text):
    return [[bytes([b]) for b in word.encode()] for word in re.findall(GSM8K_PATTERN, text)]


@pytest.mark.parametrize("seed", range(5))
def test_every_merge_is_of_a_pair_that_is_most_frequent_when_counted_afresh(seed):
    # The counts are kept up to date as words change; here they are counted from nothing each time.
    rng = random.Random(seed)
    corpus = " ".join("".join(rng.choices("aabc", k=rng.randint(1, 9))) for _ in range(60))
    words, pieces = split_words(corpus), train_bpe(corpus, 25)
    assert len(pieces) == 25
    for piece in pieces:
        counts = Counter(pair for word in words for pair in zip(word, word[1:]))
        most = max(counts.values())
        assert most >= 2 and piece in [a + b for a, b in counts if counts[a, b] == most]
        words = [fuse(word, piece) for word in words]


def test_tiktoken_cuts_text_as_the_merges_do_in_their_order():
    for text in (SNIPPET, "She eats eggs all day; the ducks sell 3 farmers.", "’’ ddaayy"):
        words = split_words(text)
        for piece in train_bpe(SNIPPET, 60):
            words = [fuse(word, piece) for word in words]
        found = BPE.decode_tokens_bytes(BPE.encode_ordinary(text))
        assert found == [part for word in words for part in word]
    assert len(BPE.encode_ordinary(SNIPPET)) < len(SNIPPET.encode()) / 2    # and something fused


# ----------------------------------------------------------------------------------------------
# GSM8K's files

GOOD = '{"question": "Is 2 < 3?", "answer": "2*3=<<2*3=6>>6, $<<6*1.5=9.0>>9.\\n#### 1,009"}'


@pytest.mark.parametrize("content", [
    GOOD, GOOD + "\n", GOOD + "\r\n", "\ufeff" + GOOD, GOOD + "\n\n  \n\r\n"],
    ids=["bare", "unix", "windows", "bom", "blank lines at the end"])
def test_a_row_loses_its_calculator_annotations_and_nothing_else(tmp_path, content):
    (tmp_path / "rows.jsonl").write_bytes(content.encode())
    assert read_jsonl(tmp_path / "rows.jsonl") == [
        {"question": "Is 2 < 3?", "answer": "1009", "solution": "2*3=6, $9.\n#### 1,009",
         "line": 1}]


@pytest.mark.parametrize("bad", [
    b"not json", b"", b"[]", b"5", b"null", b'"text"', b'{"question": "How many?"',
    b'["question", "answer"]', b'{"question": "How many?"}', b'{"answer": "#### 5"}',
    *[b'{"question": "How many?", "answer": %s}' % answer for answer in (
        b'"five"', b'"####5"', b'"#### five"', b'""', b"5", b"null")],
    *[b'{"question": %s, "answer": "#### 5"}' % question for question in (
        b"5", b'""', b'["x"]', b'"\xff"', b'"' + b"x" * 2**16 + b'"',
        b'"\\ud800"')],         # half of a surrogate pair: valid JSON, but no text
    b"[" * 20_000,              # nested past any recursion
    b"\xff\xfe{\x00}\x00"],     # UTF-16
    ids=lambda bad: repr(bad[:40]))
def test_a_bad_row_is_refused_with_its_file_and_line(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([GOOD.encode(), GOOD.encode(), bad, GOOD.encode()]))
    with pytest.raises(ValueError) as error:
        read_jsonl(path)
    message = str(error.value)
    assert re.findall(r"line \d+", message.replace(str(path), "")) == ["line 3"]
    assert str(path) in message and "\n" not in message
    assert '"question"' in message and "####" in message        # what was expected


def test_an_empty_file_is_refused_and_a_missing_one_is_an_oserror(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="rows.jsonl"):
        read_jsonl(tmp_path / "rows.jsonl")
    with pytest.raises(OSError):
        read_jsonl(tmp_path / "nowhere.jsonl")


def row(question, answer="#### 1"):
    return {"question": question, "answer": answer}


ROWS = [row(f"{'Ada Zoë Li'.split()[i % 3]} has {i} eggs and buys {i} more. How many eggs?",
            f"Now {i} + {i} = <<{i}+{i}={2 * i}>>{2 * i} eggs.\n#### {2 * i}") for i in range(300)]
OTHERS = [row(f"Otto has {i} ducks?") for i in range(3)]


@pytest.fixture
def gsm8k(tmp_path):
    """-> a function from rows of training and of testing to the task."""
    def make(train, test=OTHERS):
        for name, rows in (("train", train), ("test", test)):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return GSM8K.from_files(tmp_path / "train.jsonl", tmp_path / "test.jsonl", n_merges=50,
                                prompt_length=64, completion_length=48)
    return make


def questions(task, split):
    return [problem["question"].strip() for problem in task.held_out(split, 10**6)]


def test_validation_rows_are_held_out_of_training_by_their_question_alone(gsm8k):
    task = gsm8k(ROWS * 2)      # a row that comes twice stays on one side
    train, validation = set(questions(task, "train")), set(questions(task, "validation"))
    assert not train & validation
    # It is learned twice, and evaluated once.
    assert task.size("train") / 2 + task.size("validation") == 300
    assert len(task.repeated["validation"]) == task.size("validation")
    assert train | validation == {row["question"] for row in ROWS}
    assert 3 <= len(validation) <= 35       # one in 20 of 300, within 4.5 sigma of the binomial
    # Where a row goes does not hang on the others, nor on the order of the file, nor its answer.
    other = [row(r["question"]) for r in reversed(ROWS[::2])]
    assert set(questions(gsm8k(other), "validation")) == validation & {r["question"] for r in other}
    # Nor does the order of its problems hang on that of the file's rows.
    assert questions(gsm8k(ROWS[::-1]), "train") == questions(gsm8k(ROWS), "train")
    # An index past the last row starts over.
    assert task.problem("train", task.size("train") + 3) == task.problem("train", 3)


def test_nothing_of_the_validation_and_test_rows_goes_into_the_vocabulary(gsm8k, tmp_path):
    held_out = questions(gsm8k(ROWS), "validation")
    # The held-out rows and the test get a word of their own, often: nothing learns it.
    changed = [row(question, "qqqqqqqq " * 50 + "#### 1") for question in held_out]
    others = [r for r in ROWS if r["question"] not in held_out]
    task = gsm8k(changed + others, [row("zzzzzzzz " * 5)])
    pieces = task.tokenizer.token_byte_values()
    assert held_out and not any(b"qq" in piece or b"zz" in piece for piece in pieces)
    # It is kept in tiktoken's own file format.
    (tmp_path / "vocabulary").write_text(task.describe()["vocabulary"], encoding="utf-8")
    ranks = load_tiktoken_bpe(str(tmp_path / "vocabulary"))
    assert len(ranks) == task.tokenizer.n_vocab - 258 > 20
    assert all(task.tokenizer.encode_single_token(piece) == ranks[piece] for piece in ranks)


@pytest.mark.parametrize("shared", [0, 31, -1])     # held out for validation or not
def test_a_test_question_that_stands_in_the_training_file_is_refused(gsm8k, shared):
    with pytest.raises(ValueError, match=r"^1 question.*test\.jsonl.*train\.jsonl"):
        gsm8k(ROWS, [*OTHERS, row(ROWS[shared]["question"], "#### 77")])


def test_rows_that_leave_no_room_for_their_end_of_text_are_left_out_whole_and_counted(gsm8k):
    # Digits never fuse: solutions of every length around the limit of 48 tokens, and a question.
    rows = [row(f"Why {i}?", "7" * i + "\n#### 1") for i in range(36, 56)]
    # Of a test row only the question has to fit.
    test = [row("Otto?", "7" * 100 + "\n#### 1"), row("7" * 65)]
    task = gsm8k(rows * 3 + ROWS[:100] + [row("7" * 100)], test)
    lengths = [len(task.tokenizer.encode_ordinary(r["answer"])) for r in rows]
    assert min(lengths) < 47 and 48 in lengths and max(lengths) > 48
    expected = {r["question"] for r, length in zip(rows, lengths) if length <= 47}
    kept = {*questions(task, "train"), *questions(task, "validation")}
    assert kept == expected | {r["question"] for r in ROWS[:100]}
    n_copies = len(task.repeated["validation"])     # of 20 rows that stand there three times
    n_too_long = task.too_long["train"] + task.too_long["validation"]
    assert 0 <= 3 * (20 - len(expected)) + 1 - n_too_long <= n_copies
    assert task.size("train") + task.size("validation") + n_copies + n_too_long == 161
    assert task.too_long["test"] == 1 and questions(task, "test") == ["Otto?"]
