"""Every decoder, as one loop; and a look at a canvas being filled.

    python sample.py --watch --order top_probability --select threshold=0.9

Each step runs the model once, *scores* the masked positions (the order), *selects* how many of the
best to commit, and draws their tokens. Out come the tokens and, for every position, its `rank`: the
step at which it was committed. Left to right, confidence first, parallel: each is a choice of rank.
Legend: B rows, A of them alive, P prompt, L completion, V vocabulary, U distinct canvases."""
import sys
from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser
from contextlib import suppress
from dataclasses import dataclass

import torch
from data import load_task, plain
from model import chunks, distinct, load_checkpoint

ORDERS = {      # what is committed first, by a score; p is untempered, ties go to the left
    "left_to_right": "the leftmost mask: JustGRPO's rollouts",
    "confidence": "draw everywhere, keep the likeliest (LLaDA's LCR, the paper's arbitrary order)",
    "redrawn": "the position that confidence would choose, and there another draw",
    "top_probability": "the position with the highest max p, then draw there (TPP, 2502.06768)",
    "margin": "the largest p(1st) - p(2nd), then draw",
    "entropy": "the lowest entropy, then draw", "random": "one random permutation a row",
    "exploratory": "the highest entropy first, then top_probability (EGI, arXiv 2609.34509)"}
SELECTIONS = {  # how many are committed in one step, and the default value
    "k": (1, "the k best (LLaDA, arXiv 2502.09992)"),
    "threshold": (0.9, "all with max p >= value, at least the best (Fast-dLLM, 2505.22618)"),
    "factor": (1.0, "the largest n with (n+1)(1 - n-th highest max p) < value (Fast-dLLM)"),
    "entropy_bound": (0.1, "by rising entropy while sum - max <= value (EB-Sampler, 2505.24857)"),
    "fork": (0.9, "all with max p >= value; if none, the leftmost (Fork-dLLM, 2609.39859)")}

@dataclass(frozen=True)
class Decoder:
    """An order, a selection with its value, and blocks of block_length positions, finished from
    left to right (None: one block). Raises ValueError for a combination that means nothing."""
    order: str = "left_to_right"
    select: str = "k"
    value: float | None = None      # None: the selection's own default
    block_length: int | None = None
    temperature: float = 0.0
    selection = property(lambda self: f"{self.select}={self.value:g}")

    def __post_init__(self):
        for field, known in ("order", ORDERS), ("select", SELECTIONS):
            if (name := getattr(self, field)) not in known:
                raise ValueError(f"unknown {field} {name!r}; known: {', '.join(known)}")
        if self.value is None:
            object.__setattr__(self, "value", SELECTIONS[self.select][0])
        whole = self.select != "k" or self.value >= 1 and self.value % 1 == 0
        if not (0 <= self.value < float("inf") and whole):
            raise ValueError(f"{self.selection}: a value is 0 or more, and k is 1, 2, 3, ...")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"the temperature is {self.temperature}; it must be 0 or more")
        if self.block_length is not None and self.block_length < 1:
            raise ValueError(f"the block length is {self.block_length}; it must be 1 or more")
        if self.select != "k" and self.order != "top_probability" and (
                self.order != "confidence" or self.temperature):    # else it is the same thing
            raise ValueError(f"{self.select} picks positions by certainty, not in order "
                             f"{self.order}: use top_probability (or confidence at temperature 0)")

    def __str__(self):
        block = f", blocks of {self.block_length}" if self.block_length else (
            ", one block" * (self.order not in ("left_to_right", "random")))
        return self.order + block + f", {self.selection}" * (self.selection != "k=1")

@dataclass
class Sample:
    """What is left when a row is finished has rank L ("never"), end-of-text, entropy and logp 0."""
    tokens: torch.Tensor    # (B, L)
    rank: torch.Tensor      # (B, L) the step of the commit
    entropy: torch.Tensor   # (B, L) nats, of the untempered distribution at the commit
    logp: torch.Tensor      # (B, L) untempered log-probability of the token at the commit
    top: torch.Tensor       # (B, L) the probability of the most probable token there
    is_top: torch.Tensor    # (B, L) whether the token was that one
    nfe: torch.Tensor       # (B,) forward evaluations of that row while it was alive
    n_forward: int = 0      # evaluations run: rows share those of canvases that they have in common

@torch.no_grad()
def generate(model, prompts, length, decoder, uniform=None):
    """Fill `length` masks after each prompt (B, P) -> Sample. uniform(): fresh (B, L) numbers in
    [0, 1), one call a step (redrawn: two; random: one before the first); default torch.rand."""
    config, device, B, L = model.config, prompts.device, len(prompts), length
    uniform = uniform or (lambda: torch.rand(B, L))
    def full(value, *shape):
        return torch.full(shape or (B, L), value, device=device)
    out = Sample(tokens=full(config.mask_id), rank=full(L), entropy=full(0.0), logp=full(0.0),
                 top=full(0.0), is_top=full(False), nfe=full(0, B))
    position = torch.arange(L, device=device)
    # Left to right, one a step, only the leftmost mask matters: blocks of one position.
    single = decoder.order == "left_to_right" and decoder.selection == "k=1"
    block = position // (1 if single else decoder.block_length or L)
    # An order that is known beforehand: left to right, or a permutation of each row.
    fixed = uniform().to(device) if decoder.order == "random" else -position.float().expand(B, L)
    alive, step = torch.arange(B, device=device), 0
    while len(alive):
        u = uniform().to(device)[alive]                                                  # (A, L)
        # One evaluation for each of the U distinct canvases; state (A,) says which is whose.
        canvas, state = distinct(torch.cat([prompts[alive], out.tokens[alive]], dim=1))  # (U, P+L)
        masked = canvas[:, -L:] == config.mask_id                                        # (U, L)
        # Candidates: the masks in the block of the leftmost one, n in all; no other is looked at.
        candidate = masked & (block == block[masked.int().argmax(1)][:, None])           # (U, L)
        wanted = torch.nn.functional.pad(candidate, (prompts.shape[1], 0))               # (U, P+L)
        logp = torch.cat([model(*c) for c in chunks(model, canvas, wanted)]).log_softmax(-1)
        p = logp.exp()                                                                   # (n, V)
        top, second = p.topk(2).values.unbind(-1)                                        # (n,)
        entropy = torch.special.entr(p).sum(-1)                                          # (n,)
        # The M candidates of the rows; i (M,) says which of the n each is.
        mine = candidate[state]                                                          # (A, L)
        row, column = mine.nonzero(as_tuple=True)                                        # (M,)
        i = (candidate.flatten().cumsum(0).view_as(candidate) - 1)[state[row], column]
        drawn = draw(logp, decoder.temperature, i, u[row, column])                       # (M,)
        score = {       # what each order prefers: the highest is committed first
            "left_to_right": fixed[alive[row], column], "random": fixed[alive[row], column],
            "confidence": p[i, drawn], "redrawn": p[i, drawn],  # so the draws choose the position
            "top_probability": top[i], "margin": (top - second)[i], "entropy": -entropy[i],
            "exploratory": (top if step else entropy)[i]}[decoder.order]                 # (M,)
        chosen = select(decoder, *(torch.zeros_like(u).masked_scatter(mine, x)
                                   for x in (score, top[i], entropy[i])), mine)[mine]    # (M,)
        at, i, new = (alive[row[chosen]], column[chosen]), i[chosen], drawn[chosen]
        if decoder.order == "redrawn":
            new = draw(logp, decoder.temperature, i, uniform().to(device)[at])
        out.tokens[at], out.rank[at] = new, step
        out.logp[at], out.entropy[at] = logp[i, new], entropy[i]
        out.top[at], out.is_top[at] = top[i], new == p.argmax(-1)[i]
        out.nfe[alive], out.n_forward = out.nfe[alive] + 1, out.n_forward + len(canvas)
        alive, step = alive[~is_finished(out.tokens[alive], config)], step + 1
    out.tokens[out.tokens == config.mask_id] = config.eos_id
    return out

def draw(logp, temperature, which, u):
    """A token each from p^(1/T), by inverting the cumulative distribution at u. logp (n, V), which
    (m,) of these n, u (m,) in [0, 1) -> (m,). Adding 1 from row to row makes of the whole table one
    rising sequence, so that a draw is a binary search, however many ask of one row."""
    if temperature == 0:
        return logp.argmax(-1)[which]
    shifted = logp - logp.amax(-1, keepdim=True)        # no overflow at tiny temperatures
    cdf = (shifted / temperature).softmax(-1).cumsum(-1)                                 # (n, V)
    cdf = cdf / cdf[:, -1:]         # ends at exactly 1, so that u < 1 always falls inside
    rising = cdf.double() + torch.arange(len(cdf), device=cdf.device)[:, None]
    found = torch.searchsorted(rising.flatten(), which + u.double(), right=True)
    return found - which * cdf.shape[1]

def select(decoder, score, top, entropy, candidate):
    """Which candidates to commit now, at least one a row. All arguments and the result (A, L)."""
    value, n = decoder.value, torch.arange(1, score.shape[1] + 1, device=score.device)
    # Best first, candidates before the rest, ties from the left (fork: without certainty, all tie).
    key = {"entropy_bound": -entropy, "fork": (top >= value).float()}.get(decoder.select, score)
    order = key.masked_fill(~candidate, -torch.inf).argsort(dim=1, descending=True, stable=True)
    real, top, entropy = (x.gather(1, order) for x in (candidate, top, entropy))
    take = {        # then every rule says: commit the first so many
        "k": n <= value, "threshold": top >= value, "fork": top >= value,
        "factor": (n + 1) * (1 - top) < value,      # max p falls along n: what passes is a prefix
        "entropy_bound": entropy.cumsum(1) - entropy <= value,      # the n-th is the largest so far
    }[decoder.select]
    return torch.zeros_like(candidate).scatter(1, order, (take | (n == 1)) & real)

def is_finished(tokens, config):  # (A, L) -> (A,): all before the first end-of-text is committed
    return ~((tokens == config.mask_id) & ((tokens == config.eos_id).cumsum(1) == 0)).any(1)

def text_length(tokens, eos_id):  # (B, L) -> (B,), the first end-of-text included
    return ((tokens == eos_id).cumsum(1) == 0).sum(1).add(1).clamp(max=tokens.shape[1])

def new_parser(description):  # says what is wrong in one line, exit status 2
    with suppress(AttributeError):      # a terminal that can't write an é gets \xe9
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = ArgumentParser(description=description, usage=SUPPRESS, allow_abbrev=False,
                            formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu; auto: what works of them")
    parser.add_argument("--seed", type=int, default=0, help="of weights, problems and draws")
    return parser

def add_decoder_flags(parser):
    add = parser.add_argument
    add("--checkpoint", default="out/justgrpo.pt", help="made by train.py")
    add("--data", help="a GSM8K file to take test problems from, instead of the task's own")
    add("--order", default="left_to_right", help="which position first: " + "; ".join(
        f"{name}: {text}" for name, text in ORDERS.items()))
    add("--select", default="k=1", metavar="NAME[=VALUE]", help="how many a step: " + "; ".join(
        f"{name}={value:g}: {text}" for name, (value, text) in SELECTIONS.items()))
    add("--block-length", type=int, help="finish blocks of this many tokens from left to right")
    add("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    add("--samples", type=int, default=1, help="completions a problem")

def load_from_flags(args):  # -> model, task, info, Decoder
    model, description, info = load_checkpoint(args.checkpoint, pick_device(args.device))
    task = load_task(description, args.data, model.config)
    name, _, value = args.select.partition("=")
    value = float(value) if value else None     # ValueError names what is no number
    if (args.block_length or 0) > task.completion_length:
        raise ValueError(f"--block-length is at most {task.completion_length}, the completion's")
    if args.samples < 1:
        raise ValueError("--samples must be 1 or more")
    torch.manual_seed(args.seed)        # refuses what can't be a seed
    return model, task, info, Decoder(args.order, name, value, args.block_length, args.temperature)

def pick_device(name):  # auto: cuda if there, mps if it runs what we need, else cpu
    for device in ("cuda", "mps", "cpu") if name == "auto" else (name,):
        with suppress(RuntimeError, AssertionError, TypeError):     # mps: not all that we need
            torch.rand(2, 2, device=device).double().argsort(dim=1, stable=True).unique(dim=0)
            return device
    raise ValueError(f"--device {name} does not work here; use --device cpu, or leave it out")

def show(task, tokens, rank, watch):
    """Print a canvas and its ranks; with `watch` first each step of it, replayed from the ranks."""
    def visible(token):     # end-of-text and control characters, too
        text = plain(task.tokenizer.decode_single_token_bytes(token).decode("utf-8", "replace"))
        return "." if token == task.eos_id else text.strip(" ") or repr(text)
    words, rank, L = [visible(t).rjust(2) for t in tokens.tolist()], rank.tolist(), len(rank)
    new = "\033[7m{}\033[0m" if sys.stdout.isatty() else "{}"       # reverse video
    for step in range(1 + max(r for r in rank if r < L)) if watch else []:
        print(f"step {step:3d} ", *(
            new.format(word) if r == step else word if r < step else "__".rjust(len(word))
            for word, r in zip(words, rank)))
    print("text     ", *words)
    print("rank     ", *((str(r) if r < L else "-").rjust(len(w)) for w, r in zip(words, rank)))

def main(argv=None):
    parser = new_parser("Fill the canvas of one problem, in any order.")
    parser.add_argument("--index", type=int, default=0, help="which test problem")
    parser.add_argument("--prompt", help="a question of your own, in the task's words")
    parser.add_argument("--watch", action="store_true", help="show the canvas after every step")
    add_decoder_flags(parser)
    args = parser.parse_args(argv)
    try:
        model, task, _, decoder = load_from_flags(args)
        problem = (task.problem("test", args.index) if args.prompt is None
                   else {"question": args.prompt + task.after_question})
        n = max(task.prompt_length, len(task.tokenizer.encode_ordinary(problem["question"])))
        most = model.config.max_length - task.completion_length     # may exceed training's prompts
        prompts = task.prompts([problem["question"]] * args.samples, min(n, most))
    except (OSError, ValueError) as error:
        parser.error(plain(str(error)))
    sample = generate(model, prompts.to(model.cos.device), task.completion_length, decoder)
    print("question  " + plain(problem["question"].strip()))
    speed = text_length(sample.tokens, task.eos_id) / sample.nfe
    for i, tokens in enumerate(sample.tokens):
        show(task, tokens, sample.rank[i], args.watch)
        answer = problem.get("answer")
        verdict = ("" if answer is None else "; right" if task.reward(task.text(tokens), answer)
                   else f"; wrong, it is {plain(answer)}")
        print(f"{sample.nfe[i]:10d} forward evaluations, {speed[i]:.2f} tokens each, "
              f"log-prob {sample.logp[i].sum():.3f}{verdict}")

if __name__ == "__main__":
    main()
