"""Every decoder, as one loop; and a look at a canvas being filled.

    python sample.py --watch --order top_probability --select threshold=0.9

Each step runs the model once, *scores* the masked positions (the order), *selects* how
many of the best to commit, and draws their tokens. Out come the tokens and, for every
position, its *rank*: the step at which it was committed. A text of five tokens that was
written

    left to right                           rank 0 1 2 3 4
    from right to left                      rank 4 3 2 1 0
    in parallel, the ends first, together   rank 0 1 1 1 0
    and its end-of-text was committed at position 2: what comes after it never is
                                            rank 0 1 2 5 5   (5 = L, "never")

Legend: B rows, A of them alive, P prompt, L completion, V vocabulary, U distinct
canvases, n positions of these that are looked at, M candidates of the rows that are
alive (some are the same position of the same canvas).
"""
import sys
from argparse import (SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser,
                      ArgumentTypeError)
from contextlib import suppress
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F

from data import FORMER, TASKS, is_right, read_jsonl
from model import (ALONE, MaskedDiffusionLM, ModelConfig, chunks, diffusion_loss,
                   distinct, draw_masks, from_weights, has_float64, numbered)
from runs import ends_quietly, is_sound, load, plain, save

# ----------------------------------------------------------------------------------------
# the decoders


@dataclass
class Candidates:
    """What an order may look at: M masked positions, all that could be committed now."""
    drawn: torch.Tensor         # (M,) the probability of the token that was drawn there
    top: torch.Tensor           # (M,) the highest probability there
    second: torch.Tensor        # (M,) and the second
    entropy: torch.Tensor       # (M,) nats
    position: torch.Tensor      # (M,) 0 ... L-1
    permuted: torch.Tensor      # (M,) a random number, fixed for each position of a row
    step: int


# name: what it is, and its score; the highest is committed first. Probabilities are
# untempered; ties go to the left.
ORDERS = {
    "left_to_right": ("the leftmost mask: JustGRPO's rollouts",
                      lambda at: -at.position.float()),
    "confidence": ("draw everywhere, keep the likeliest (LLaDA's LCR, the paper's arbitrary "
                   "order)",
                   lambda at: at.drawn),
    "top_probability": ("the position with the highest max p, then draw there (TPP, "
                        "2502.06768)",
                        lambda at: at.top),
    "margin": ("the largest p(1st) - p(2nd), then draw",
               lambda at: at.top - at.second),
    "entropy": ("the lowest entropy, then draw",
                lambda at: -at.entropy),
    "random": ("one random permutation a row",
               lambda at: at.permuted),
    "exploratory": ("the highest entropy first, then top_probability (EGI, arXiv 2609.34509)",
                    lambda at: at.top if at.step else at.entropy),
}


@dataclass
class Ranked:
    """What a selection may look at: each row's candidates, the best first. All (A, L)."""
    n: torch.Tensor             # (L,) 1, 2, 3, ...
    top: torch.Tensor           # the highest probability there
    entropy: torch.Tensor       # nats


# name: its default value, what it is, and how many are committed in one step: the first
# so many for which it is true, and at least one.
SELECTIONS = {
    "k": (1.0, "the k best (LLaDA, arXiv 2502.09992)",
          lambda at, k: at.n <= k),
    "threshold": (0.9, "all with max p >= value, at least the best (Fast-dLLM, 2505.22618)",
                  lambda at, tau: at.top >= tau),
    "factor": (1.0, "the largest n with (n+1)(1 - n-th highest max p) < value (Fast-dLLM)",
               lambda at, f: (at.n + 1) * (1 - at.top) < f),
    "entropy_bound": (0.1, "by rising entropy while sum - max <= value (EB-Sampler, "
                           "2505.24857)",
                      lambda at, gamma: at.entropy.cumsum(1) - at.entropy <= gamma),
    "fork": (0.9, "all with max p >= value; if none, the leftmost (Fork-dLLM, 2609.39859)",
             lambda at, lam: at.top >= lam),
}


# What float32 can divide by, and by whose inverse it can multiply.
SMALLEST, LARGEST = 1e-37, 1e37


@dataclass(frozen=True)
class Decoder:
    """An order, a selection with its value, and blocks of block_length positions, which
    are finished from left to right (None: one block).

    temperature 0 takes the likeliest token. Raises ValueError for a combination that
    means nothing.
    """
    order: str = "left_to_right"
    select: str = "k"
    value: float | None = None          # None: the selection's own default
    block_length: int | None = None
    temperature: float = 0.0

    def __post_init__(self):
        for field, known in (("order", ORDERS), ("select", SELECTIONS)):
            name = getattr(self, field)
            if name not in known:
                raise ValueError(f"unknown {field} {name!r}; known: {', '.join(known)}")
        if self.value is None:
            object.__setattr__(self, "value", SELECTIONS[self.select][0])
        is_whole = self.value >= 1 and self.value % 1 == 0
        if not 0 <= self.value < float("inf") or (self.select == "k" and not is_whole):
            raise ValueError(f"{self.selection}: a value is 0 or more, and k is 1, 2, 3, ...")
        T = self.temperature
        if not (T == 0 or SMALLEST <= T <= LARGEST):
            raise ValueError(f"the temperature is {T}; it is 0 (the likeliest token), or from "
                             f"{SMALLEST:g} to {LARGEST:g}: float32 divides by no other")
        if self.block_length is not None and self.block_length < 1:
            raise ValueError(f"the block length is {self.block_length}; it must be 1 or more")
        # At temperature 0, confidence and top_probability are the same thing.
        by_certainty = self.order == "top_probability" or (
            self.order == "confidence" and self.temperature == 0)
        if self.select != "k" and not by_certainty:
            raise ValueError(
                f"{self.select} picks positions by certainty, not in order {self.order}: use "
                "top_probability (or confidence at temperature 0)")

    @property
    def selection(self):
        return f"{self.select}={self.value:g}"

    def __str__(self):
        text = self.order
        if self.block_length:
            text += f", blocks of {self.block_length}"
        elif self.order not in ("left_to_right", "random"):
            text += ", one block"
        if self.selection != "k=1":
            text += f", {self.selection}"
        return text


@dataclass
class Sample:
    """B completions. What was never committed has rank L, end-of-text, entropy and logp
    0."""
    tokens: torch.Tensor    # (B, L)
    rank: torch.Tensor      # (B, L) the step of the commit
    entropy: torch.Tensor   # (B, L) nats, of the untempered distribution at the commit
    logp: torch.Tensor    # (B, L) untempered log-probability of the token at the commit
    top: torch.Tensor       # (B, L) the probability of the most probable token there
    is_top: torch.Tensor    # (B, L) whether the token was that one
    nfe: torch.Tensor       # (B,) forward evaluations of that row while it was alive
    n_forward: int = 0    # evaluations run: rows share those of canvases that are equal


def empty_sample(n_rows, length, mask_id, device):
    def full(value, *shape):
        return torch.full(shape, value, device=device)

    return Sample(
        tokens=full(mask_id, n_rows, length), rank=full(length, n_rows, length),
        entropy=full(0.0, n_rows, length), logp=full(0.0, n_rows, length),
        top=full(0.0, n_rows, length), is_top=full(False, n_rows, length),
        nfe=full(0, n_rows))


@torch.no_grad()
def generate(model, prompts, length, decoder, uniform=None):
    """Fill `length` masks after each prompt (B, P), in any order -> Sample.

    uniform(): fresh (B, L) numbers in [0, 1), one call a step (random order: one more
    before the first step); default torch.rand. For one row, which shares nothing with
    others, a step would be:

        p = softmax of the logits at the masks of the current block
        draw a token at each of them, score each, select the best
        write these down, with the step as their rank
    """
    config, device = model.config, prompts.device
    B, L = len(prompts), length
    uniform = uniform or (lambda: torch.rand(B, L))
    out = empty_sample(B, L, config.mask_id, device)
    block = torch.arange(L, device=device) // block_size(decoder, L)              # (L,)
    permuted = torch.zeros_like(out.logp)                                    # (B, L)
    if decoder.order == "random":
        permuted = uniform().to(device)
    alive = torch.arange(B, device=device)   # rows that are not finished           (A,)
    step = 0
    while len(alive):
        u = uniform().to(device)[alive]                                         # (A, L)
        seen = look(model, prompts[alive], out.tokens[alive], block, decoder.temperature, u)
        score = ORDERS[decoder.order][1](Candidates(
            drawn=seen.logp.exp(), top=seen.top, second=seen.second, entropy=seen.entropy,
            position=seen.position, permuted=permuted[alive[seen.row], seen.position],
            step=step))                                                           # (M,)
        chosen = select(decoder, seen.candidate, score, seen.top, seen.entropy)   # (M,)
        at = alive[seen.row[chosen]], seen.position[chosen]
        out.tokens[at] = seen.token[chosen]
        out.rank[at] = step
        out.logp[at] = seen.logp[chosen]
        out.entropy[at] = seen.entropy[chosen]
        out.top[at] = seen.top[chosen]
        out.is_top[at] = seen.is_top[chosen]
        out.nfe[alive] += 1
        out.n_forward += seen.n_forward
        alive = alive[~is_finished(out.tokens[alive], config)]
        step += 1
    out.tokens[out.tokens == config.mask_id] = config.eos_id
    return out


@dataclass
class Seen:
    """What the model says at one step of the M candidates of A rows, which stand row by
    row; and what is drawn there."""
    candidate: torch.Tensor     # (A, L) bool: could be committed now
    row: torch.Tensor           # (M,) of the A
    position: torch.Tensor      # (M,) 0 ... L-1
    token: torch.Tensor         # (M,) drawn
    logp: torch.Tensor          # (M,) its log-probability, untempered
    top: torch.Tensor           # (M,) the highest probability there
    second: torch.Tensor        # (M,) and the second
    is_top: torch.Tensor        # (M,) whether the token is the one that has the highest
    entropy: torch.Tensor       # (M,) nats
    n_forward: int              # evaluations that were run, U


def look(model, prompts, tokens, block, temperature, u):
    """Run the model on A rows, prompts (A, P) and tokens (A, L), and draw at each
    candidate -> Seen. Rows whose canvases are equal share one evaluation.

    block (L,): of each position; u (A, L): random numbers in [0, 1).
    """
    L = tokens.shape[1]
    canvas, state = distinct(torch.cat([prompts, tokens], dim=1))   # (U, P+L), (A,)
    # Only the masks in the block of the leftmost one can be committed, or are looked at.
    masked = canvas[:, -L:] == model.config.mask_id                             # (U, L)
    current = block[masked.int().argmax(1)]                                       # (U,)
    looked_at = masked & (block == current[:, None])                            # (U, L)
    # Back from the U canvases to the rows that share them.
    candidate = looked_at[state]                                                # (A, L)
    row, position = candidate.nonzero(as_tuple=True)                              # (M,)
    which = numbered(looked_at)[state[row], position]   # of all n that are looked at (M,)
    wanted = F.pad(looked_at, (prompts.shape[1], 0))                          # (U, P+L)
    # Some canvases at a time: a table of all n places is large where V is.
    places, found, start = [], [], 0
    for piece in chunks(model, canvas, wanted):
        logp = model(*piece).log_softmax(-1)                                      # (n, V)
        mine = (start <= which) & (which < start + len(logp))                     # (M,)
        found.append(ask(logp, temperature, which[mine] - start, u[row, position][mine]))
        places.append(mine.nonzero()[:, 0])
        start += len(logp)
    order = torch.cat(places).argsort()
    in_order = [torch.cat(part)[order] for part in zip(*found)]                   # (M,)
    return Seen(candidate, row, position, *in_order, n_forward=len(canvas))


def ask(logp, temperature, which, u):
    """Draw at M candidates; which (M,): where each stands among n places, logp (n, V).
    Returns token, logp, top, second, is_top and entropy, as Seen has them, (M,) each."""
    token = draw(logp, temperature, which, u)
    p = logp.exp()
    top, second = p.topk(2).values.unbind(-1)                                     # (n,)
    entropy = torch.special.entr(p).sum(-1)                                       # (n,)
    return (token, logp[which, token], top[which], second[which],
            token == p.argmax(-1)[which], entropy[which])


def block_size(decoder, length):
    """How far to the right a step may reach."""
    if decoder.order == "left_to_right" and decoder.selection == "k=1":
        return 1        # then only the leftmost mask matters
    return decoder.block_length or length


def temper(logits, temperature):
    """(..., V) at a temperature above 0: what the sampler draws from, and what the
    likelihood is of. The largest is 0, so that none overflows when T is tiny."""
    return (logits - logits.detach().amax(-1, keepdim=True)) / temperature


def draw(logp, temperature, which, u):
    """A token each from p^(1/T), by inverting the cumulative distribution at u.

    logp (n, V), which (M,) of these n, u (M,) in [0, 1) -> (M,). Adding 1 from row to
    row makes of the whole table one rising sequence, so that a draw is a binary search,
    however many ask of one row.
    """
    if temperature == 0:
        return logp.argmax(-1)[which]
    cdf = temper(logp, temperature).softmax(-1).cumsum(-1)                      # (n, V)
    cdf = cdf / cdf[:, -1:]     # ends at exactly 1, so that u < 1 always falls inside
    if not has_float64(cdf.device):     # the same tokens, with a table of M rows
        return (cdf[which] <= u[:, None]).sum(-1)
    rising = cdf.double() + torch.arange(len(cdf), device=cdf.device)[:, None]
    found = torch.searchsorted(rising.flatten(), which + u.double(), right=True)
    return found - which * cdf.shape[1]


def select(decoder, candidate, score, top, entropy):
    """Which of the M candidates to commit now, at least one a row: (M,) bool.

    candidate (A, L); score, top and entropy (M,), of its True places, row by row.
    """
    def table(values, fill):
        """(M,) -> (A, L)"""
        filled = torch.full(candidate.shape, fill, device=values.device)
        return filled.masked_scatter(candidate, values)

    key = score
    if decoder.select == "entropy_bound":       # has an order of its own
        key = -entropy
    if decoder.select == "fork":        # where nothing is certain all tie: the leftmost
        key = (top >= decoder.value).float()
    order = table(key, -torch.inf).argsort(dim=1, descending=True, stable=True)  # (A, L)
    n = torch.arange(1, candidate.shape[1] + 1, device=order.device)
    ranked = Ranked(n, table(top, 0.0).gather(1, order),
                    table(entropy, 0.0).gather(1, order))
    take = SELECTIONS[decoder.select][2](ranked, decoder.value) | (n == 1)      # (A, L)
    take = take & candidate.gather(1, order)
    return torch.zeros_like(candidate).scatter(1, order, take)[candidate]


def is_finished(tokens, config):
    """(A, L) -> (A,): everything before the first end-of-text is committed."""
    is_text = (tokens == config.eos_id).cumsum(1) == 0
    return ~((tokens == config.mask_id) & is_text).any(1)


def text_length(tokens, eos_id):
    """(B, L) -> (B,): tokens up to the first end-of-text, which counts."""
    is_text = (tokens == eos_id).cumsum(1) == 0
    return is_text.sum(1).add(1).clamp(max=tokens.shape[1])

# ----------------------------------------------------------------------------------------
# checkpoints


def save_checkpoint(path, model, task, **info):
    """info: plain values, such as the stage and the seed."""
    save(path, {"config": asdict(model.config), "model": model.state_dict(),
                "task": task.describe(), "info": info})


def load_checkpoint(path, device="cpu"):
    """A model in eval mode, its task's description, and the info that was saved with
    them.

    Raises OSError, or ValueError in one line.
    """
    def rebuild(saved):
        if not is_sound(saved["model"]):
            raise ValueError("weights that are no numbers, or beyond all bounds")
        model = from_weights(ModelConfig(**saved["config"]), saved["model"])
        canvas = torch.zeros(1, min(model.config.max_length, 64), dtype=torch.long)
        if model(canvas).isnan().any():
            raise ValueError("it does not run")
        return model.to(device), dict(saved["task"]), dict(saved["info"])

    model, description, info = load(path, rebuild, most=2**30)
    name = str(description.get("name"))
    if name in FORMER:
        raise ValueError(f"{path} is of {FORMER[name]}")
    return model, description, info


def load_task(description, config, test_file=None):
    """The task of a checkpoint whose network has this config; test_file: rows to test on.

    Raises ValueError in one line, also where the two do not belong together.
    """
    name = str(description.get("name"))
    if name not in TASKS:
        raise ValueError(
            f"task {name!r} is one of your own: call eval_gsm8k.evaluate in a script")
    try:
        task = TASKS[name](**{k: v for k, v in description.items() if k != "name"})
        ids = task.tokenizer.n_vocab, task.mask_id, task.eos_id
        if ids != (config.vocab_size, config.mask_id, config.eos_id):
            raise ValueError("the vocabulary is another network's")
        if not 0 < task.completion_length <= config.max_length - task.prompt_length:
            raise ValueError("the canvas is another network's")
        if task.n_lines:
            task.prompts([task.problem("test", 0)["question"]])
        task.completions([""])
    except Exception as error:      # whatever odd values may provoke
        raise ValueError(f"the checkpoint's task is damaged ({str(error)[:60]!r})") from None
    if test_file:
        task.use_rows({"test": read_jsonl(test_file)})
    return task

# ----------------------------------------------------------------------------------------
# flags that several programs share


def new_parser(description):
    """An ArgumentParser that says what is wrong in one line, exit status 2."""
    with suppress(AttributeError):      # a terminal that can't write an é gets \xe9
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = ArgumentParser(description=description, usage=SUPPRESS, allow_abbrev=False,
                            formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default="auto",
                        help="cuda, mps, cpu; auto: what works of them")
    parser.add_argument("--seed", type=seed, default=0,
                        help="of weights, problems and draws")
    return parser


def seed(text):
    """A flag's type: what torch takes for a seed."""
    number = int(text)
    try:
        torch.Generator().manual_seed(number)
    except (ValueError, RuntimeError, OverflowError):
        raise ArgumentTypeError(f"{number} is beyond 64 bits") from None
    return number


def positive(kind):
    """A flag's type: an int above 0, or a float above 0 that float32 can divide by."""
    def parse(text):
        number = kind(text)
        if not number > 0:
            raise ArgumentTypeError(f"{text} is not above 0")
        if kind is float and not SMALLEST <= number <= LARGEST:
            raise ArgumentTypeError(f"{text} is not from {SMALLEST:g} to {LARGEST:g}")
        return number
    parse.__name__ = f"positive {kind.__name__}"    # argparse shows it
    return parse


def folder(text):
    """A flag's type: a folder that has a name."""
    if not text.strip():
        raise ArgumentTypeError("is empty: name a folder")
    return text


def add_decoder_flags(parser):
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--checkpoint", default="out/justgrpo.pt", help="made by train.py")
    one.add_argument("--llada", type=folder, metavar="FOLDER", help="a published LLaDA in its "
                     "place; the defaults are then the protocol of JustGRPO's evaluation: "
                     "--order confidence --block-length 32")
    add_llada_flags(parser)
    add = parser.add_argument
    add("--data", help="a GSM8K file to take test problems from, instead of the task's own")
    add("--order", default="left_to_right", help="which position first: " + "; ".join(
        f"{name}: {text}" for name, (text, _) in ORDERS.items()))
    add("--select", default="k=1", metavar="NAME[=VALUE]", help="how many a step: "
        + "; ".join(f"{name}={value:g}: {text}"
                    for name, (value, text, _) in SELECTIONS.items()))
    add("--block-length", type=int,
        help="finish blocks of this many tokens from left to right")
    add("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    add("--samples", type=positive(int), default=1, help="completions a problem")


def add_llada_flags(parser):
    add = parser.add_argument
    add("--length", type=positive(int), default=256,
        help="tokens of a completion, with --llada")
    add("--dtype", choices=["float32", "bfloat16"],
        help="of the weights, with --llada; without it, as they are in the file")


def parse_decoder_flags(parser, argv, **others):
    """The flags; with --llada, of which others are the defaults, too."""
    first, _ = parser.parse_known_args(argv)    # twice: first for whose defaults are wanted
    if first.llada:
        parser.set_defaults(order="confidence", **others)
    args = parser.parse_args(argv)
    if args.llada and args.block_length is None and args.order != "left_to_right":
        args.block_length = min(32, args.length)
    return args


def import_llada():
    """The module: only here, for it needs packages that nothing else needs. Raises
    ValueError."""
    try:
        import llada
    except ModuleNotFoundError as error:
        raise ValueError(f"--llada needs the package {error.name}: pip install -r "
                         "requirements-llada.txt") from None
    return llada


def load_from_flags(args, **settings):
    """Model, task, info and Decoder of these flags; settings: of llada.Chat. Raises
    OSError, or ValueError."""
    device = pick_device(args.device)
    if args.llada:      # what can be wrong comes before the weights, which may take minutes
        llada = import_llada()
        task = llada.Chat(args.llada, llada.read_config(args.llada), args.length, **settings)
        if args.data:
            task.use_rows({"test": read_jsonl(args.data)})
        decoder = decoder_of(args, task)
        dtype = args.dtype and getattr(torch, args.dtype)
        model = llada.load_llada(args.llada, device, dtype)
        n = sum(weight.numel() for weight in model.parameters())
        print(f"{n:,} parameters, {model.wte.weight.dtype}, on {device}")
        return model, task, {"stage": "llada"}, decoder
    model, description, info = load_checkpoint(args.checkpoint, device)
    task = load_task(description, model.config, args.data)
    return model, task, info, decoder_of(args, task)


def decoder_of(args, task):
    """The Decoder of the flags. Raises ValueError."""
    name, _, value = args.select.partition("=")
    value = float(value) if value else None     # ValueError names what is no number
    if (args.block_length or 0) > task.completion_length:
        raise ValueError(
            f"--block-length is at most {task.completion_length}, the completion's")
    decoder = Decoder(args.order, name, value, args.block_length, args.temperature)
    if args.samples > 1 and args.temperature == 0 and args.order != "random":
        raise ValueError(f"--samples {args.samples}: at temperature 0 they are all equal (but "
                         "in random order); give a --temperature")
    return decoder


def pick_device(name):
    """auto: cuda if there, mps if it runs what we need, else cpu. Raises ValueError for
    a device that does not work."""
    devices = ("cuda", "mps", "cpu") if name == "auto" else (name,)
    for device in devices:
        with suppress(RuntimeError, AssertionError, TypeError):
            if device != "cpu":
                try_device(device)
            if not has_float64(device):
                print(f"note: {device} has no float64: draws and sums are made in float32")
            return device
    raise ValueError(
        f"--device {name} does not work here; use --device cpu, or leave it out")


def try_device(device):
    """A draw and a gradient in small: mps, as of today, has not all that we need."""
    config = ModelConfig(6, mask_id=4, eos_id=5, n_layer=1, n_head=1, n_embd=2, n_hidden=2)
    prompts = torch.zeros(2, 3, dtype=torch.long, device=device)
    with ALONE:
        model = MaskedDiffusionLM(config).to(device)
        sample = generate(model, prompts, 4, Decoder("confidence", temperature=1.0))
        diffusion_loss(model, prompts, sample.tokens, *draw_masks(2, 4)).backward()

# ----------------------------------------------------------------------------------------
# python sample.py


def show(task, tokens, rank, watch):
    """Print a canvas (L,) and its ranks; with watch first each step, replayed from
    them."""
    words = [visible(task, token) for token in tokens.tolist()]
    rank, L = rank.tolist(), len(rank)
    new = "\033[7m{}\033[0m" if sys.stdout.isatty() else "{}"       # reverse video
    n_steps = 1 + max(r for r in rank if r < L)
    for step in range(n_steps if watch else 0):
        shown = []
        for word, r in zip(words, rank):
            if r == step:
                shown.append(new.format(word))
            elif r < step:
                shown.append(word)
            else:
                shown.append("__".rjust(len(word)))
        print(f"step {step:3d} ", *shown)
    print("text     ", *words)
    print("rank     ", *[(str(r) if r < L else "-").rjust(len(word))
                         for word, r in zip(words, rank)])


def visible(task, token):
    """A token as two characters or more, end-of-text and control characters, too."""
    if token == task.eos_id:
        return " ."
    piece = task.tokenizer.decode_single_token_bytes(token)
    text = plain(piece.decode("utf-8", "replace"))
    return (text.strip(" ") or repr(text)).rjust(2)


def pick_problem(args, task, model):
    """What to ask: a problem (without an answer if it is the user's), its prompts (B,
    P)."""
    if args.prompt is None:
        size = task.size("test")
        if args.index < 0 or size and args.index >= size:
            raise ValueError(f"--index {args.index}: the {size or 'endless'} test problems "
                             "are numbered from 0")
        problem = task.problem("test", args.index)
    else:
        problem = {"question": args.prompt + task.after_question}
    length = None
    if task.is_padded:      # it may be longer than in training
        n_tokens = len(task.tokenizer.encode_ordinary(problem["question"]))
        longest = model.config.max_length - task.completion_length
        length = min(max(task.prompt_length, n_tokens), longest)
    return problem, task.prompts([problem["question"]] * args.samples, length)


@ends_quietly
def main(argv=None):
    parser = new_parser("Fill the canvas of one problem, in any order.")
    add = parser.add_argument
    add("--index", type=int, default=0, help="which test problem")
    add("--prompt", help="a question of your own, in the task's words")
    add("--watch", action="store_true", help="show the canvas after every step")
    add_decoder_flags(parser)
    args = parse_decoder_flags(parser, argv)
    try:
        model, task, _, decoder = load_from_flags(args)
        problem, prompts = pick_problem(args, task, model)
    except (OSError, ValueError) as error:
        parser.error(plain(str(error)))
    L, generator = task.completion_length, torch.Generator().manual_seed(args.seed)
    sample = generate(model, prompts.to(model.cos.device), L, decoder,
                      lambda: torch.rand(len(prompts), L, generator=generator))
    print("question  " + plain(problem["question"].strip()))
    speed = text_length(sample.tokens, task.eos_id) / sample.nfe
    for i, tokens in enumerate(sample.tokens):
        if task.is_padded or args.watch:
            show(task, tokens, sample.rank[i], args.watch)
        else:       # a chat's canvas is long
            print("\n".join(map(plain, task.text(tokens).split("\n"))))
        print(f"{sample.nfe[i]:10d} forward evaluations, {speed[i]:.2f} tokens each, "
              f"log-prob {sample.logp[i].sum():.3f}{verdict(task, tokens, problem)}")


def verdict(task, tokens, problem):
    if "answer" not in problem:
        return ""
    if is_right(task, task.text(tokens), problem):
        return "; right"
    return f"; wrong, it is {plain(str(problem['answer']))}"


if __name__ == "__main__":
    main()
