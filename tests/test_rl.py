"""What experiments/ computes about RL: python -m pytest tests/test_rl.py"""
import argparse
import copy
import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import train
from data import Toy
from experiments import (after, bases, beyond, content, curves, edge, fast, freedom, frontier,
                         knobs, rl, rl_verdicts, still, trained)
from experiments.rl import Run
from grpo import ARMS, log_prob_table
from model import MaskedDiffusionLM, ModelConfig
from sample import Decoder
from tests.test_arms import PROMPT, small_model
from tests.test_scripts import ROOT, Coin

TASK = Toy()


def toy_model():
    torch.manual_seed(0)
    model = MaskedDiffusionLM(ModelConfig(TASK.tokenizer.n_vocab, TASK.mask_id, TASK.eos_id,
                                          n_layer=1, n_embd=16, n_head=2, n_hidden=16))
    for p in model.parameters():        # a fresh one's blocks are the identity
        torch.nn.init.normal_(p, std=0.3) if p.ndim == 2 else None
    return model.eval()


@pytest.fixture
def flags(tmp_path, monkeypatch):
    model = toy_model()
    monkeypatch.setattr(rl, "load", lambda *_: (model, Coin(), "0a0b0c0d"))
    return argparse.Namespace(bases="", runs=str(tmp_path), quick=True, seeds=[0],
                              csv=str(tmp_path / "x.csv"), figure=None, model=model)


# ----------------------------------------------------------------------------------------------
# runs

def test_a_run_is_watched_before_and_after_leaves_the_base_alone_and_is_made_once(flags,
                                                                                 monkeypatch):
    before = copy.deepcopy(flags.model.state_dict())
    run = Run("confidence", 0, "--rollout-block-length 8 --grpo-lr .01")
    rows = rl.train_run(flags.bases, flags.runs, run, True)
    assert [r["step"] for r in rows] == ["0", "5"]
    assert all(torch.equal(w, before[k]) for k, w in flags.model.state_dict().items())
    assert rows[0]["evaluations"] == rows[0]["states"] == "0" == rows[0]["seconds"]
    assert int(rows[1]["evaluations"]) >= int(rows[1]["states"]) > 0
    assert float(rows[0]["moved"]) == 0 < float(rows[1]["moved"])
    solved = rl.from_bits(rows[1]["bits"]).reshape(3, -1).mean(1)
    assert solved == pytest.approx([float(rows[1][d]) for d in train.WATCHED], abs=1e-4)
    assert rows[1]["validation_threshold"] != "" == rows[0]["validation_threshold"]
    model, task = rl.trained(flags.bases, flags.runs, run, True)
    assert any(not torch.equal(w, before[k]) for k, w in model.state_dict().items())
    monkeypatch.setattr(train, "grpo", None)        # made again, it would fail
    assert rl.train_run(flags.bases, flags.runs, run, True) == rows
    seldom = dataclasses.replace(run, watched=rl.ENDS)      # the same run, watched at fewer steps
    assert rl.train_run(flags.bases, flags.runs, seldom, True) == rows
    with pytest.raises(TypeError, match="not callable"):    # 7 was not watched
        rl.train_run(flags.bases, flags.runs, dataclasses.replace(run, watched=(0, 7)), True)


def test_rows_that_exist_are_neither_trained_nor_lost(flags, monkeypatch):
    first = rl.collect(flags, [Run("justgrpo", 0)])
    both = rl.collect(flags, [Run("justgrpo", 0), Run("rejection", 0)])
    assert both[:2] == first and [r["arm"] for r in both] == 2 * ["justgrpo"] + 2 * ["rejection"]
    monkeypatch.setattr(rl, "train_run", None)
    assert rl.collect(flags, [Run("justgrpo", 0)]) == first


def test_evaluations_are_counted_a_row_and_state():
    rank = torch.tensor([[0, 1, 2, 4], [0, 0, 1, 4], [0, 0, 0, 0], [-1, 0, -1, 0]])
    assert rl.states_a_row(rank, (rank >= 0) & (rank < 4)) == 3 + 2 + 1 + 1
    assert rl.states_a_row(rank[:1], torch.tensor([[0, 1, 0, 0]])) == 1


def test_the_spy_counts_rollouts_terms_and_the_canvases_that_ran_and_changes_nothing():
    model = small_model()
    task = argparse.Namespace(forks=lambda tokens: tokens == 1)
    sample = train.generate(model, PROMPT.expand(6, -1), 4, Decoder("random", temperature=1.0))
    scale = (sample.rank < 4).float()
    args = model, PROMPT.expand(6, -1), sample.tokens, sample.rank, torch.linspace(-1, 1, 6)
    plain = sum(x.item() for x in train.grpo_loss(*args, scale=scale))
    with rl.Spy(model, task) as spy:
        again = sum(x.item() for x in train.grpo_loss(*args, scale=scale))
    assert again == plain
    assert spy.evaluations == int(scale.sum())      # one a step, so as many as terms
    assert 0 < spy.states <= spy.evaluations
    assert spy.forks.tolist() == 2 * [int(((sample.tokens == 1) & (scale > 0)).sum()),
                                      int(scale.sum())]
    ran = spy.states
    list(train.grpo_loss(*args, scale=scale))
    assert spy.states == ran and train.grpo_loss.__module__ == "grpo"       # gone


def test_the_kl_term_is_zero_at_the_base_and_grpos_estimate_elsewhere():
    model = small_model()
    task = argparse.Namespace(forks=lambda tokens: tokens == 1)
    sample = train.generate(model, PROMPT.expand(6, -1), 4, Decoder(temperature=1.0))
    scale = (sample.rank < 4).float()
    args = PROMPT.expand(6, -1), sample.tokens, sample.rank
    with rl.Spy(model, task, kl=0.5):
        def total(model):
            return sum(x.item() for x in train.grpo_loss(model, *args, torch.zeros(6),
                                                         scale=scale))
        assert total(model) == pytest.approx(0, abs=1e-6)
        base = log_prob_table(model, *args)
        other = small_model(0.5)
        gap = (base - log_prob_table(other, *args)).double()
        expected = 0.5 * float((gap.exp() - gap - 1).sum() / scale.sum())
        assert total(other) == pytest.approx(expected, rel=1e-4) and expected > 1e-3


def test_the_share_of_the_prompt_that_one_step_masks_can_be_set():
    prompt = torch.ones(50, 40, dtype=torch.long)
    sample = argparse.Namespace(tokens=prompt, rank=0 * prompt)
    args = "one_step", prompt, sample, torch.full((50,), 40), 3
    for share in (0.0, 0.15, 1.0):
        with rl.Spy(small_model(), None, prompt_mask=share):
            masked = train.asked(*args, generator=None)[0] == 3
        assert masked.float().mean().item() == pytest.approx(share, abs=0.05)


def test_the_mask_rates_of_elbo_can_be_kept_from_0_and_1():
    ids = torch.ones(400, 50, dtype=torch.long)
    for low in (0.0, 0.2):
        with rl.Spy(small_model(), None, t_from=low):
            *_, scale = train.asked("coupled", ids, argparse.Namespace(tokens=ids, rank=0 * ids),
                                    torch.full((400,), 50), 3,
                                    generator=torch.Generator().manual_seed(0))
        share = 1 / (2 * scale[scale > 0])      # of masks
        assert share.min().item() == pytest.approx(low, abs=0.02)
        assert share.max().item() == pytest.approx(1 - low, abs=0.02)
        hidden = (scale[:400] > 0).float().mean(1)
        t = torch.where(scale[:400] > 0, 1 / (2 * scale[:400]), 0).amax(1)
        assert (hidden - t)[t > 0].abs().max() < 0.35        # 5 sigma of 50 draws


def test_what_rollouts_contain_by_hand(monkeypatch):
    problem = TASK.problem("test", 0)
    full, two, none = (TASK.solution(problem, n) for n in (6, 2, 0))
    texts = [[full, full, two, none], [none, none, none, none]]
    correct = np.array([[1.0, 0, 0, 1], [0, 0, 0, 0]])
    one = (np.array([3.0, 1.0]), np.array([4.0, 4.0]))
    measures = {"malformed": one, "entropy_fork": one, "entropy_other": (one[0], 0 * one[1])}
    monkeypatch.setattr(rl, "evaluate", lambda *_: {"texts": texts, "correct": correct,
                                                    "measures": measures})
    row = rl.content(None, TASK, None, 2, 0)
    assert (row["all_steps"], row["some_steps"], row["no_steps"]) == (0.25, 0.125, 0.625)
    assert (row["right_all"], row["right_some"], row["right_none"]) == (0.5, 0, 0.2)
    assert row["reward"] == 0.25 and row["signal"] == 0.5 and row["n_rollouts"] == 8
    assert row["length"] == (2 * 22 + 10 + 5 * 3) / 8       # end-of-text included
    assert row["entropy_fork"] == 0.5 and row["entropy_other"] == ""


# ----------------------------------------------------------------------------------------------
# what is made of the rows

def test_the_learning_rate_is_the_best_of_all_seeds_on_validation_problems():
    def row(seed, rate, value):
        run = curves.contender("fork", seed, rate)
        return {**vars(run), "seed": str(seed), "left_to_right": "1",
                **{f"validation_{d}": str(value) for d in curves.DECODERS}}
    rows = [row(s, rate, v) for rate, values in zip(curves.RATES, ((0.9, 0.1), (0.6, 0.6), (0, 0)))
            for s, v in enumerate(values)]
    assert curves.best(rows, "fork", [0, 1]) == "" and curves.best(rows, "fork", [0]) == (
        "--grpo-lr 1.5e-5")
    assert [curves.lr(rate) for rate in curves.RATES] == ["1.5e-05", "5e-05", "0.00015"]


def test_an_arm_is_there_when_it_stays_there():
    run = curves.contender("fork", 0)
    def when(*values):
        return curves.when([{**vars(run), "seed": "0", "step": str(5 * i),
                             **{d: str(v) for d in curves.DECODERS}}
                            for i, v in enumerate(values)], run)
    assert when(0.1, 0.95, 0.9) == "5" and when(0.1, 0.95, 0.8, 0.9) == "15"
    assert when(0.9, 0.9) == "0" and when(0.1, 0.95, 0.8) == "never"


def test_every_arm_has_the_same_number_of_runs_and_none_is_twice():
    runs = curves.runs([0, 1, 2])
    assert len({rl.run_key(vars(r)) for r in runs}) == len(runs) == 3 * 3 * len(curves.CONTENDERS)
    assert {r.arm for r in runs} == set(ARMS)
    for other in (freedom, fast, knobs):
        made = other.runs([0])
        assert len({r.folder("", False) for r in made}) == len(made)


@pytest.mark.parametrize("options", sorted({r.options for m in (curves, freedom, fast, knobs)
                                            for r in m.runs([0])}))
def test_the_options_of_every_run_mean_something(options):
    arm = "confidence" if "block" in options else "justgrpo"       # which refuses blocks
    words = [word for word in options.split() if "=" not in word]
    train.check(*train.parse_flags(["--arm", arm, *words]))


def test_bits_keep_their_zeros():
    for bits in ([0, 0, 1, 1], [1] * 9, [0] * 400):
        text = "".join(map(str, bits))
        assert frontier.correct({"correct": f"{int('1' + text, 2):x}"}).tolist() == bits
        assert rl.from_bits(rl.bits(np.array(bits, dtype=float))).tolist() == bits


def test_the_best_within_a_budget_is_the_most_accurate_that_takes_no_more():
    def row(decoder, nfe, right):
        return {"model": "m", "seed": "0", "decoder": decoder, "nfe": str(nfe),
                "correct": f"{int('1' + right, 2):x}"}
    rows = [row("a", 3, "1000"), row("b", 5, "1110"), row("c", 6, "1100"),
            row(frontier.LTR, 4, "1111")]
    assert [frontier.best_within(rows, 0, "m", n) and frontier.best_within(
        rows, 0, "m", n)["decoder"] for n in (2, 3, 6)] == [None, "a", "b"]


def test_right_steps_are_those_before_the_first_that_is_not():
    steps = [" 3", " +1 -> 4", " *2 -> 8"]
    for text, n in ((" 3 +1 -> 4 *2 -> 8 #### 8", 2), (" 3 +1 -> 4 *2 -> 7 #### 7", 1),
                    (" #### 8", 0), (" 2 +1 -> 3 *2 -> 8 #### 8", 0), (" 3 +1 -> 4 #### 4", 1)):
        assert beyond.steps_right(text, steps) == n


@pytest.mark.parametrize("name", beyond.SETS)
def test_stories_beyond_training_fit_the_model_and_its_vocabulary(name):
    task, known = beyond.SETS[name], 256
    assert 2 * TASK.prompt_length + TASK.completion_length >= (
        task.prompt_length + task.completion_length)
    problems = task.problems("test", 0, 50)
    ids = task.completions([task.solution(p, task.n_steps) for p in problems])
    assert (ids >= known).all() and task.tokenizer.n_vocab == TASK.tokenizer.n_vocab
    assert (task.prompts([p["question"] for p in problems]) >= known).all()
    if name == "rare operands":
        operands = {step.split()[0] for p in problems for step in p["steps"][1:]}
        assert operands <= {"+4", "+5", "+6", "-4", "-5", "-6", "*3", "~all"} and len(operands) > 4
        assert any("gets 1" in p["question"] for p in TASK.problems("test", 0, 50))    # and back


def test_writing_pays_where_six_steps_earn_more_than_a_guess():
    assert edge.pays({"values": ".8", "jump": ".25", "answer": ".9"}) == pytest.approx(0.47)
    good, bad = ({"values": v, "jump": ".2", "answer": "1"} for v in ("1", ".1"))
    rows = [{**good, "all_steps_after": a, "no_steps_after": b}
            for a, b in (("1", "0"), (".9", ".1"), ("0", "1"))]
    rows.append({**bad, "all_steps_after": "0", "no_steps_after": "1"})
    assert edge.check(rows) == [["writing pays", 2, 1], ["jumping pays", 0, 1]]
    guess = {"values": "0", "jump": ".05", "answer": "1"}       # 1 in 13 is .077
    assert edge.pays(guess) < 0 < edge.pays(guess, edge.LUCK)


def test_the_calculation_is_of_the_tokens_that_have_to_be_right():
    model, found = toy_model(), edge.calculate(toy_model(), TASK, 3)
    for n, p in enumerate(TASK.held_out("validation", 3)):
        prompt = TASK.prompts([p["question"]])[0]

        def logp(n_written, word, i):       # of the token that this word is, after the text so far
            ids = TASK.completions([TASK.solution(p, n_written)])[0]
            assert TASK.tokenizer.decode([int(ids[i])]) == word
            seen = torch.where(torch.arange(22) < i, ids, TASK.mask_id)
            with torch.no_grad():
                out = model(torch.cat([prompt, seen])[None])[0, -22 + i].log_softmax(-1)
            return float(out[ids[i]])
        answer = f" {p['answer']}"
        steps = [" " + step.split()[-1] for step in p["steps"][1:]]
        assert float(found["jump"][n]) == pytest.approx(logp(0, answer, 1), abs=1e-4)
        assert float(found["answer"][n]) == pytest.approx(logp(6, answer, 20), abs=1e-4)
        assert float(found["values"][n]) == pytest.approx(
            sum(logp(6, word, 3 * s + 3) for s, word in enumerate(steps)), abs=1e-4)


def test_a_model_that_reads_nothing_is_consistent_in_all_orders():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(22, TASK.tokenizer.n_vocab, generator=generator).softmax(1)

    class Deaf(torch.nn.Module):
        config = toy_model().config

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, canvas, wanted=None):
            logits = torch.zeros(*canvas.shape, p.shape[1])
            logits[:, -22:] = p.log()
            logits[..., TASK.mask_id] = -torch.inf
            return logits if wanted is None else logits[wanted]
    row, _ = still.measure(Deaf(), TASK, 8)
    assert row["order_spread"] == pytest.approx(0, abs=1e-4)
    assert row["random_logp"] == pytest.approx(row["left_to_right_logp"], abs=1e-4)
    assert row["nll_1"] == pytest.approx(-row["left_to_right_logp"] / 22, abs=1e-4)
    assert row["nll_0.5"] == pytest.approx(row["nll_1"], rel=0.2)     # some of the tokens, the same
    assert row["infill_right"] == 0


def test_infilling_is_the_probability_of_what_is_missing_given_all_the_rest():
    model = toy_model()
    row, _ = still.measure(model, TASK, 4)
    total = 0.0
    for p in TASK.held_out("validation", 4):
        ids = TASK.completions([TASK.solution(p, 6)])[0]
        prompt = TASK.prompts([p["question"]])[0]
        for i in range(7, 13):      # the third and fourth step, from left to right
            canvas = torch.where((torch.arange(22) >= i) & (torch.arange(22) < 13), TASK.mask_id,
                                 ids)
            with torch.no_grad():
                logp = model(torch.cat([prompt, canvas])[None])[0, -22 + i].log_softmax(-1)
            total += float(logp[ids[i]])
    assert row["infill_logp"] == pytest.approx(total / 4, abs=1e-3)


def test_models_after_rl_are_measured_once_and_the_base_is_one_of_them(flags, monkeypatch):
    seen = []

    def how(args):
        return lambda cell: seen.append(cell) or {"value": len(seen)}
    cells = trained.cells([0, 1], decoder=["a", "b"])
    assert len(cells) == 2 * 2 * len(trained.MODELS) and trained.MODELS[0] == trained.BASE
    columns = ["seed", "model", "decoder", "value"]
    rows = rl.gather(flags, columns, cells, how(flags))
    assert rl.gather(flags, columns, cells, how(flags)) == rows and len(seen) == len(cells)
    assert [int(r["value"]) for r in rows] == list(range(1, len(cells) + 1))


def test_decoders_and_sets_have_names_that_tell_them_apart():
    for names in (frontier.DECODERS, after.DECODERS, beyond.SETS):
        assert len(set(names)) == len(names)
    for a, b in itertools.combinations(frontier.DECODERS.values(), 2):
        assert a != b


def test_the_push_towards_writing_is_the_share_times_the_advantage():
    row = {"all_steps": "0.25", "right_all": "0.9", "reward": "0.3"}
    assert content.push(row) == pytest.approx(0.15)
    assert content.push({"all_steps": "0.0", "right_all": "", "reward": "0.3"}) == 0


def test_a_rank_correlation_sees_order_alone_and_has_an_interval():
    value, low, high = rl_verdicts.correlation([(i, i ** 3) for i in range(9)])
    assert value == pytest.approx(1) and high == pytest.approx(1) and low > 0.9
    value, low, high = rl_verdicts.correlation([(i, -i - 3 * (i % 2)) for i in range(12)])
    assert low < value < high and value < 0


def test_a_run_that_another_script_makes_is_waited_for_and_its_lock_left(tmp_path):
    # Two processes need the same run: one makes it, the other reads it, neither keeps the lock.
    code = ("import sys\nfrom experiments import rl, bases\n"
            "rows = rl.train_run(sys.argv[1], sys.argv[2], rl.Run('justgrpo', 0), quick=True)\n"
            "print(len(rows))\nsys.stdout.flush()\ninput()\n")
    bases.checkpoint(tmp_path / "bases", "default", 0, quick=True)
    two = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "bases", tmp_path / "rl"],
                            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
           for _ in range(2)]
    assert [p.stdout.readline() for p in two] == ["2\n", "2\n"]     # both, before either ends
    os.close(train.lock(Run("justgrpo", 0).folder(tmp_path / "rl", quick=True)))
    for p in two:
        p.communicate("\n")
