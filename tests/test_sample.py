"""The sampler's log-probabilities are those of its policy, wherever draws do not choose positions.

    python -m pytest tests/test_sample.py

Every decoder is compared with a plain loop; selections are worked by hand, too.
"""
import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import grpo
import runs
import train
from data import FORMER, GSM8K, Worksheet
from sample import (ORDERS, SELECTIONS, Decoder, draw, generate, load_checkpoint, load_task,
                    save_checkpoint, select)
from tests.test_model import EOS, MASK, tiny_model, watch

L = 6
PROMPTS = torch.tensor([[0, 1, 3], [EOS, EOS, 5], [3, 3, 0], [0, 1, 3], [EOS, 1, 1], [5, 0, 3]])


@pytest.fixture
def model():
    return tiny_model()


def small_model(sharpness=1.5):
    """Tokens 0 and 1, end-of-text 2, MASK 3."""
    return tiny_model(seed=3, vocab_size=4, mask_id=3, eos_id=2, sharpness=sharpness)


def noise(seed, rows=slice(None), n_rows=len(PROMPTS), length=L):
    """uniform() for generate: the same numbers each time, of these rows only."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.rand(n_rows, length, generator=generator)[rows]


def likelihood(model, prompts, tokens, rank):
    """grpo.log_probs of completions, (B, L), 0 where nothing was committed."""
    out = torch.zeros(tokens.shape)
    with torch.no_grad():
        for row, position, logp in grpo.log_probs(model, prompts, tokens, rank):
            out[row, position] = logp
    return out


def outcomes(sample):
    """Each row's (tokens, rank)."""
    return list(zip(map(tuple, sample.tokens.tolist()), map(tuple, sample.rank.tolist())))


def assert_frequencies(counts, expected):
    """Chi-square: the statistic has mean df and variance 2 df; the seed is fixed, so 4 sigma will
    do. Cells that expect fewer than 5 are taken together."""
    impossible = [cell for cell in counts if expected.get(cell, 0) == 0]
    assert not impossible, impossible
    cells = [(counts[cell], n) for cell, n in expected.items() if n >= 5]
    rest = [(counts[cell], n) for cell, n in expected.items() if 0 < n < 5]
    if rest:
        cells.append(tuple(map(sum, zip(*rest))))
    statistic, df = sum((found - n) ** 2 / n for found, n in cells), len(cells) - 1
    assert statistic < df + 4 * math.sqrt(2 * df), (statistic, df)


# ----------------------------------------------------------------------------------------------
# probabilities

def plain_score(order, step, i, p, token):
    """Of position i, which has probabilities p (V,) and drew this token."""
    first, second = p.topk(2).values.tolist()
    entropy = float(torch.special.entr(p).sum())
    return {"left_to_right": -i, "confidence": float(p[token]), "top_probability": first,
            "margin": first - second, "entropy": -entropy,
            "exploratory": first if step else entropy}[order]


def is_written(tokens, mask_id, eos_id):
    return mask_id not in tokens[:(tokens + [eos_id]).index(eos_id)]


@torch.no_grad()
def all_that_can_be_written(model, prompt, length, order):
    """Every (tokens, rank), one token a step, by following every draw."""
    mask_id, eos_id = model.config.mask_id, model.config.eos_id
    begun, found = [([mask_id] * length, [length] * length)], []
    while begun:
        tokens, rank = begun.pop()
        if is_written(tokens, mask_id, eos_id):
            found.append((tuple(eos_id if t == mask_id else t for t in tokens), tuple(rank)))
            continue
        step = length - tokens.count(mask_id)
        p = model(torch.tensor([prompt + tokens]))[0, -length:].softmax(-1)
        masked = [i for i in range(length) if tokens[i] == mask_id]
        place = max(masked, key=lambda i: (plain_score(order, step, i, p[i], 0), -i))
        for token in range(mask_id):
            begun.append(([*tokens[:place], token, *tokens[place + 1:]],
                          [*rank[:place], step, *rank[place + 1:]]))
    return found


@pytest.mark.parametrize("order", [
    "left_to_right", "top_probability", "margin", "entropy", "exploratory"])
def test_the_probabilities_of_all_strings_sum_to_one_and_are_the_frequencies(order):
    model, N = small_model(), 10_000
    every = all_that_can_be_written(model, [1, 0], 3, order)
    tokens, rank = (torch.tensor(x) for x in zip(*every))
    prompts = torch.tensor([[1, 0]]).expand(N, -1)
    p = likelihood(model, prompts[:len(every)], tokens, rank).sum(1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    sample = generate(model, prompts, 3, Decoder(order, temperature=1.0))
    expected = {string: N * float(q) for string, q in zip(every, p)}
    assert_frequencies(Counter(outcomes(sample)), expected)


@pytest.mark.parametrize("decoder, is_policy", [
    (("margin", "k", 2), True), (("top_probability", "threshold", 0.6), True),
    (("top_probability", "fork", 0.6), True), (("confidence",), False)], ids=str)
def test_if_several_go_in_one_step_they_sum_to_one_too_but_in_confidence_order_to_more(decoder,
                                                                                       is_policy):
    torch.manual_seed(0)
    prompts, N = torch.tensor([[1, 0]]).expand(3000, -1), 3000
    sample = generate(small_model(), prompts, 3, Decoder(*decoder, temperature=1.0))
    p = dict(zip(outcomes(sample), sample.logp.sum(1).exp().tolist()))      # as it was recorded
    if is_policy:
        assert sum(p.values()) == pytest.approx(1, abs=0.01)    # less only what was never drawn
        assert_frequencies(Counter(outcomes(sample)), {cell: N * q for cell, q in p.items()})
    else:       # the draws choose the position: the likelihood leaves that choice out
        assert sum(p.values()) > 1.2


# ----------------------------------------------------------------------------------------------
# every decoder is the plain loop

def plain_selection(decoder, score, top, entropy):
    """Which positions to commit; score, top and entropy: position -> number."""
    def ranked(key, sign=-1):
        return sorted(key, key=lambda i: (sign * round(key[i], 5), i))

    if decoder.select == "k":
        return ranked(score)[:int(decoder.value)]
    sure = [i for i in top if top[i] >= decoder.value]
    if decoder.select == "threshold":
        return sure or ranked(score)[:1]
    if decoder.select == "fork":
        return sure or [min(top)]
    if decoder.select == "factor":
        order = ranked(top)
        fits = [(n + 1) * (1 - top[i]) < decoder.value for n, i in enumerate(order, 1)]
    else:
        order = ranked(entropy, sign=1)
        fits = [sum(entropy[j] for j in order[:n]) <= decoder.value for n in range(len(order))]
    return order[:max([n for n, fit in enumerate(fits, 1) if fit], default=1)]


@torch.no_grad()
def plain_generate(model, prompt, length, decoder, uniform):
    """The oracle: one row, the whole canvas at every step, nothing shared. -> the row's fields of
    a Sample, lists; what is left at the end of the text is not filled in."""
    row = {"tokens": [MASK] * length, "rank": [length] * length, "nfe": 0,
           **{name: [0] * length for name in ("logp", "entropy", "top", "is_top")}}
    size = decoder.block_length or length
    if decoder.order == "random":
        permuted = uniform().tolist()
    while not is_written(row["tokens"], MASK, EOS):
        u = uniform()
        p = model(torch.tensor([prompt + row["tokens"]]))[0, -length:].softmax(-1)
        cdf = (p ** (1 / (decoder.temperature or 1))).cumsum(-1)
        drawn = (cdf / cdf[:, -1:] <= u[:, None]).sum(-1)
        if decoder.temperature == 0:
            drawn = p.argmax(-1)
        start = row["tokens"].index(MASK) // size * size
        masked = [i for i in range(start, min(start + size, length)) if row["tokens"][i] == MASK]
        top = {i: float(p[i].max()) for i in masked}
        entropy = {i: -sum(q * math.log(q) for q in p[i].tolist() if q > 0) for i in masked}
        if decoder.order == "random":
            score = {i: permuted[i] for i in masked}
        else:
            score = {i: plain_score(decoder.order, row["nfe"], i, p[i], drawn[i]) for i in masked}
        for i in plain_selection(decoder, score, top, entropy):
            values = {"tokens": int(drawn[i]), "rank": row["nfe"], "entropy": entropy[i],
                      "logp": float(p[i, drawn[i]].log()), "top": top[i],
                      "is_top": bool(drawn[i] == p[i].argmax())}
            for name, value in values.items():
                row[name][i] = value
        row["nfe"] += 1
    return row


def each_decoder(blocks=(None, 2, 3), temperatures=(0, 0.6, 1.0)):
    """Every order with every selection that goes with it."""
    for order, block, T in itertools.product(ORDERS, blocks, temperatures):
        yield Decoder(order, "k", 1, block, T)
        yield Decoder(order, "k", 2, block, T)
        if order == "top_probability" or (order == "confidence" and T == 0):
            yield Decoder(order, "threshold", 0.7, block, T)
            yield Decoder(order, "factor", 1.5, block, T)
            yield Decoder(order, "entropy_bound", 0.6, block, T)
            yield Decoder(order, "fork", 0.7, block, T)


@pytest.mark.parametrize("length", [1, L])
@pytest.mark.parametrize("decoder", list(each_decoder()), ids=lambda d: f"{d}-T{d.temperature}")
def test_the_sampler_gives_all_that_the_plain_loop_gives(model, decoder, length):
    prompts = PROMPTS.repeat_interleave(2, 0)       # siblings share their first states
    sample = generate(model, prompts, length, decoder, noise(6, n_rows=12, length=length))
    for n, prompt in enumerate(prompts.tolist()):
        uniform = noise(6, rows=n, n_rows=12, length=length)
        row = plain_generate(model, prompt, length, decoder, uniform)
        tokens = row.pop("tokens")
        assert sample.tokens[n].tolist() == [EOS if t == MASK else t for t in tokens]
        for name, values in row.items():
            assert getattr(sample, name)[n].tolist() == pytest.approx(values, abs=1e-5), name
    logp = likelihood(model, prompts, sample.tokens, sample.rank)
    assert torch.allclose(sample.logp, logp, atol=1e-5)


@pytest.mark.parametrize("decoder", [
    Decoder(temperature=1.0), Decoder("confidence", block_length=2, temperature=1.0),
    Decoder("top_probability", "threshold", 0.7)], ids=str)
def test_equal_canvases_are_run_once_a_step_and_finished_rows_not_at_all(model, decoder):
    canvases = watch(model)
    sample = generate(model, PROMPTS, L, decoder, noise(1))
    seen = []
    for step in range(int(sample.nfe.max())):
        written = torch.where(sample.rank < step, sample.tokens, MASK)
        alive = torch.cat([PROMPTS, written], dim=1)[sample.nfe > step]
        seen += alive.unique(dim=0).tolist()
    assert sorted(torch.cat(canvases).tolist()) == sorted(seen)
    assert len(seen) == sample.n_forward < int(sample.nfe.sum())


def test_from_left_to_right_only_one_position_of_a_state_is_asked_for(model):
    asked = []
    model.register_forward_hook(lambda module, args, logits: asked.append(args[1].sum(1)))
    generate(model, PROMPTS, L, Decoder(temperature=1.0), noise(9))
    assert (torch.cat(asked) == 1).all()


def test_the_size_of_the_chunks_changes_no_sample(model):
    decoder = Decoder("confidence", temperature=1.0)
    whole = generate(model, PROMPTS, L, decoder, noise(7))
    canvases = watch(model)
    model.config = replace(model.config, n_embd=2**40)      # as if one row filled the memory
    assert generate(model, PROMPTS, L, decoder, noise(7)).tokens.equal(whole.tokens)
    assert max(map(len, canvases)) == 1


def test_an_order_of_ones_own_is_two_lines_and_goes_everywhere(model, monkeypatch, run, capsys):
    monkeypatch.setitem(ORDERS, "right_to_left",
                        ("the rightmost mask", lambda at: at.position.float()))
    decoder = Decoder("right_to_left", temperature=1.0)
    sample = generate(model, PROMPTS, L, decoder, noise(1))
    assert (sample.rank == torch.arange(L - 1, -1, -1)).all()
    logp = likelihood(model, PROMPTS, sample.tokens, sample.rank)
    assert torch.allclose(sample.logp, logp, atol=1e-5)
    # In act 3 it is one more row.
    monkeypatch.setitem(train.TRAP, "right_to_left", decoder)
    task, args = Worksheet(n_lines=1), SimpleNamespace(samples=2, trap_problems=2, seed=0)
    untrained = tiny_model(0, task.tokenizer.n_vocab, task.mask_id, task.eos_id)
    train.measure_trap(args, run, task, untrained, "base")
    orders = {decoder.order for decoder in train.TRAP.values()}
    assert {row["order"] for row in run.rows["results"]} == orders
    assert "right_to_left" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------
# worked by hand

class Table:
    """Stands in for a network: these probabilities (L, V) at the completion, whatever it reads.
    The last token of the vocabulary is MASK, the one before it end-of-text."""

    def __init__(self, table):
        self.logits = torch.tensor(table).log()
        n_tokens = self.logits.shape[1]
        self.config = SimpleNamespace(mask_id=n_tokens - 1, eos_id=n_tokens - 2, n_layer=1,
                                      vocab_size=n_tokens,
                                      n_embd=1)

    def __call__(self, canvas, wanted):
        return self.logits[wanted.nonzero()[:, 1] - 1]      # after a prompt of one token

    def generate(self, decoder):
        return generate(self, torch.zeros(1, 1).long(), len(self.logits), decoder)


TOP, ALL, SOME = [0.5, 0.75, 0.25, 0.625], [1, 1, 1, 1], [1, 0, 1, 0]
# falling: .95 .9 .8 .6; (n+1)(1-c): 2 * .05 = .1, 3 * .1 = .3, 4 * .2 = .8, 5 * .4 = 2
FACTOR = [0.8, 0.95, 0.6, 0.9]
ENTROPY = [1.0, 0.25, 2.0, 0.5]     # rising: .25 .5 1 2; sum - max: 0, .25, .75, 1.75


@pytest.mark.parametrize("name, value, values, candidate, expected", [
    ("k", 1, TOP, ALL, [1]), ("k", 3, TOP, ALL, [0, 1, 3]), ("k", 3, TOP, SOME, [0, 2]),
    ("threshold", 0.5, TOP, ALL, [0, 1, 3]), ("threshold", 0.75, TOP, ALL, [1]),
    ("threshold", 0.9, TOP, ALL, [1]), ("threshold", 0.9, TOP, SOME, [0]),  # at least the best
    ("fork", 0.625, TOP, ALL, [1, 3]), ("fork", 0.9, TOP, ALL, [0]),        # or the leftmost
    ("fork", 0.7, TOP, [0, 0, 1, 1], [2]),
    ("factor", 0.05, FACTOR, ALL, [1]), ("factor", 0.5, FACTOR, ALL, [1, 3]),
    ("factor", 2.1, FACTOR, ALL, [0, 1, 2, 3]), ("factor", 1.5, [0.5, 0.5], [1, 1], [0]),
    ("factor", 1, FACTOR, [1, 0, 1, 1], [0, 3]),                            # .2, then 3 * .2
    ("entropy_bound", 0, ENTROPY, ALL, [1]), ("entropy_bound", 0.75, ENTROPY, ALL, [0, 1, 3]),
    ("entropy_bound", 1, ENTROPY, SOME, [0, 2]),
    # Ties go to the left; an unstable sort shows from 17 on.
    *[(name, value, [0.5] * 40, [0] * 3 + [1] * 37, [3]) for name, value in [
        ("k", 1), ("threshold", 0.9), ("factor", 0), ("entropy_bound", 0.4), ("fork", 0.9)]]])
def test_the_selections_by_hand(name, value, values, candidate, expected):
    candidate = torch.tensor([candidate]).bool()
    values = torch.tensor(values)[candidate[0]]     # score, certainty and entropy alike
    chosen = select(Decoder("top_probability", name, value), candidate, values, values, values)
    assert candidate[0].nonzero()[chosen, 0].tolist() == expected


def test_a_tie_of_probabilities_is_one_for_confidence_and_top_probability_alike():
    # Log-probabilities one float apart, whose exponentials are the same float: both go to the left.
    logits = torch.randn(50_000, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 3], logits[:, 0] = -torch.inf, logits[:, :3].amax(1)
    logp, row = logits.log_softmax(-1)[:, 0].sort()
    pair = ((logp[1:] > logp[:-1]) & (logp[1:].exp() == logp[:-1].exp())).nonzero()[0, 0]
    table = Table([[0.5, 0.5, 0.0, 0.0]] * 2)
    table.logits = logits[row[pair:pair + 2]]
    for order in ("confidence", "top_probability"):
        assert table.generate(Decoder(order)).rank.tolist() == [[0, 1]], order


def test_end_of_text_in_any_order():
    #                 0    1    eos  mask
    table = Table([[0.70, 0.30, 0.00, 0.0],
                   [0.40, 0.60, 0.00, 0.0],
                   [0.05, 0.05, 0.90, 0.0],     # first: the length is decided
                   [0.50, 0.30, 0.20, 0.0],     # never committed: filled with end-of-text
                   [0.80, 0.20, 0.00, 0.0]])    # second, though after the end: it keeps its rank
    sample = table.generate(Decoder("top_probability"))
    assert sample.tokens.tolist() == [[0, 1, 2, 2, 0]]
    assert sample.rank.tolist() == [[2, 3, 0, 5, 1]]
    assert sample.nfe.tolist() == [4]
    assert sample.logp[0].exp().tolist() == pytest.approx([0.7, 0.6, 0.9, 1.0, 0.8])


# ----------------------------------------------------------------------------------------------
# draws

@pytest.mark.parametrize("temperature", [0, 1e-40, 1e-3, 0.6, 1.0, 50.0])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2 ** -24])     # 2^-24 is the step of torch.rand
def test_no_draw_is_of_a_token_without_probability(temperature, u):
    logp = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)) * 5
    logp[:, [0, 1, 100, 101, 298, 299]] = -torch.inf
    logp[:6, :299] = -torch.inf         # a single token left, the last one
    logp[:6, 299] = 0
    logp = logp.log_softmax(-1)
    drawn = draw(logp, temperature, torch.arange(300), torch.full((300,), u))
    assert logp[torch.arange(300), drawn].isfinite().all()


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("n, n_tokens, m", [(1, 5, 1000), (40, 300, 2000), (3000, 7, 3000)])
def test_the_binary_search_draws_what_counting_would(temperature, n, n_tokens, m):
    generator = torch.Generator().manual_seed(n)
    logp = (torch.randn(n, n_tokens, generator=generator) * 4).log_softmax(-1)
    which, u = torch.randint(n, (m,), generator=generator), torch.rand(m, generator=generator)
    cdf = (logp / temperature).softmax(-1).cumsum(-1)
    plain = (cdf[which] / cdf[which, -1:] <= u[:, None]).sum(1)
    drawn = draw(logp, temperature, which, u)
    assert (drawn != plain).sum() <= 1      # u can be within rounding of a border
    assert len(set(drawn.tolist())) > 1


# ----------------------------------------------------------------------------------------------
# what is refused: decoders that mean nothing, checkpoints that are none

@pytest.mark.parametrize("fields, reason", [
    (dict(order="upwards"), "left_to_right.*confidence.*top_probability.*exploratory"),
    (dict(order="top_probability", select="best"), "threshold.*factor.*entropy_bound.*fork"),
    *[(dict(order=order, select=name, value=0.9), f"{name}.*{order}")
      for order in ORDERS if order not in ("top_probability", "confidence")
      for name in SELECTIONS if name != "k"],
    (dict(order="confidence", select="threshold", value=0.9, temperature=0.6), "temperature 0"),
    (dict(temperature=-0.1), "temperature.*-0.1"), (dict(temperature=math.nan), "temperature.*nan"),
    (dict(temperature=math.inf), "temperature.*inf"),
    (dict(block_length=0), "block length.*0"), (dict(block_length=-1), "block length.*-1"),
    (dict(value=0), "k=0"), (dict(value=1.5), "k=1.5"), (dict(value=math.nan), "k=nan"),
    (dict(order="top_probability", select="threshold", value=-1), "threshold=-1")], ids=str)
def test_a_combination_that_means_nothing_is_refused_with_the_reason(fields, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Decoder(**fields)
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture
def saved(tmp_path, model):
    """A good checkpoint: its path, and what is in it."""
    save_checkpoint(tmp_path / "model.pt", model, Worksheet(later=0.3), stage="base", seed=7)
    return tmp_path / "model.pt", runs.load(tmp_path / "model.pt")


def test_a_checkpoint_gives_back_network_task_and_info(saved, model):
    again, task, info = load_checkpoint(saved[0])
    canvas = torch.randint(6, (3, 12))
    assert again(canvas).equal(model(canvas)) and again.config == model.config
    assert (task, info) == (Worksheet(later=0.3).describe(), {"stage": "base", "seed": 7})
    assert not again.training


@pytest.mark.parametrize("part, changes", [
    *[("config", changes) for changes in (
        dict(new_field=1), dict(n_head=0), dict(n_head=16), dict(n_embd=2**40), dict(mask_id=6),
        dict(mask_id=-7), dict(norm_eps="x"))],
    *[("model", {"ln_f.weight": weight}) for weight in (
        torch.full((16,), math.nan), torch.full((16,), -math.inf), torch.full((16,), 2e4),
        torch.ones(16).double(), torch.ones(1), None)],
    (None, dict(config=None)), (None, dict(model={})), (None, dict(task=3))])
def test_weights_that_are_no_numbers_and_forged_sizes_are_refused_in_one_line(saved, part, changes):
    path, content = saved
    (content[part] if part else content).update(changes)
    runs.save(path, content)
    with pytest.raises(ValueError, match="model.pt") as error:
        load_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", FORMER)
def test_a_checkpoint_of_a_former_task_is_refused_with_what_to_do(saved, name):
    path, content = saved
    content["task"] = {"name": name, "direct": 0.65, "skip": 0.12, "n_steps": 6}
    runs.save(path, content)
    with pytest.raises(ValueError, match=r"model\.pt.*python train\.py.*commit 2fe5832") as error:
        load_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1


GSM = GSM8K("aGk= 256\nIDc= 257", prompt_length=6, completion_length=6)     # "hi", " 7"
QUESTION = {"question": "hi 7?", "answer": "7#### 7"}


def config_of(task, **changes):
    config = {"vocab_size": task.tokenizer.n_vocab, "mask_id": task.mask_id,
              "eos_id": task.eos_id, "max_length": 40}
    return SimpleNamespace(**{**config, **changes})


@pytest.mark.parametrize("task", [Worksheet(2, (0.2, 0.4), 0.1, 3, 12, False), GSM],
                         ids=lambda task: task.name)
def test_a_described_task_comes_back_and_takes_its_test_problems_from_a_file(tmp_path, task):
    (tmp_path / "test.jsonl").write_text(json.dumps(QUESTION))
    description = json.loads(json.dumps(task.describe()))       # plain values
    again = load_task(description, config_of(task))
    assert again.describe() == task.describe()
    assert again.prompts(["hi 7?"]).equal(task.prompts(["hi 7?"]))
    if task is GSM:     # has no problems without a file
        with pytest.raises(ValueError, match="--data"):
            again.problem("test", 0)
    else:
        assert again.problems("test", 0, 20) == task.problems("test", 0, 20)
    again = load_task(description, config_of(task), tmp_path / "test.jsonl")
    assert again.problem("test", 5)["question"] == "hi 7?" + task.after_question


@pytest.mark.parametrize("description, changes, reason", [
    ({"name": "copy"}, {}, "your own"), ({}, {}, "your own"),
    ({"name": "worksheet", "colour": "red"}, {}, "damaged"),
    *[({"name": "worksheet", "n_lines": n}, {}, "damaged") for n in (-1, 7, 10**9, "6")],
    *[({"name": "worksheet", "blank": pair}, {}, "damaged") for pair in ([0.5], [2, 0], "01")],
    ({**GSM.describe(), "vocabulary": "%"}, {}, "damaged"),
    ({**GSM.describe(), "completion_length": 0}, vars(config_of(GSM)), "damaged"),
    *[(Worksheet().describe(), {name: 38}, "another") for name in (
        "vocab_size", "mask_id", "eos_id", "max_length")]], ids=str)
def test_a_description_that_is_no_task_or_another_networks_is_refused(description, changes, reason):
    with pytest.raises(ValueError, match=reason) as error:
        load_task(description, config_of(Worksheet(), **changes))
    assert len(str(error.value).splitlines()) == 1
