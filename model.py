"""The network: a masked-diffusion language model (LLaDA in miniature), its loss, its checkpoints.

It is a GPT with three differences:
1. no causal mask: every position sees the whole canvas, left and right;
2. a MASK token: some tokens are hidden, and the output at position i is a distribution for position
   i itself, not for the next one. There is no time input: the number of masks says how far we are;
3. the loss: hide each completion token with probability t ~ U(0, 1] and weight the cross-entropy at
   the hidden ones by 1/t. In expectation that is the negative log-likelihood averaged over every
   order of filling in (LLaDA, arXiv 2502.09992, eq. 3; a test proves it).
Names are LLaDA's. Legend: B rows, P prompt, L completion, S = P + L, V vocabulary, C = n_embd."""
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

BUDGET = 2**21      # hidden values run at a time; with gradients, about 200 MB
FORMAT = b"flexibility-trap checkpoint, version 2\n"

@dataclass
class ModelConfig:
    vocab_size: int
    mask_id: int            # never predicted: its logit is -inf
    eos_id: int             # ends a completion and fills the rest of it
    max_length: int = 64    # longest canvas, P + L
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 128
    n_hidden: int = 384     # width of the MLP; LLaDA uses 3 * n_embd as well
    rope_theta: float = 100.0   # wavelengths of 6 to 500 tokens: the canvas is short
    norm_eps: float = 1e-5

class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        c, h, self.n_head = config.n_embd, config.n_hidden, config.n_head
        self.attn_norm, self.ff_norm = (nn.RMSNorm(c, eps=config.norm_eps) for _ in range(2))
        self.q_proj, self.k_proj, self.v_proj, self.attn_out = (
            nn.Linear(c, c, bias=False) for _ in range(4))
        self.ff_proj, self.up_proj = (nn.Linear(c, h, bias=False) for _ in range(2))   # SwiGLU
        self.ff_out = nn.Linear(h, c, bias=False)
        for last in (self.attn_out, self.ff_out):       # each block starts as the identity
            nn.init.zeros_(last.weight)

    def forward(self, x, cos, sin, wanted=None):
        """(B, S, C) -> (B, S, C), or only the n positions `wanted` (B, S) of it, (n, C). They need
        keys and values of every position, but the rest only of their own."""
        h = self.attn_norm(x)
        k, v = (f(h).unflatten(-1, (self.n_head, -1)).transpose(1, 2)          # (B, H, S, C/H)
                for f in (self.k_proj, self.v_proj))
        k, real = rotate(k, cos, sin), ...      # an index: everything
        if wanted is not None:      # W = the most that a row wants; they come first
            n = wanted.sum(1, keepdim=True)
            at = wanted.int().argsort(dim=1, descending=True, stable=True)[:, :n.max()]  # (B, W)
            real = torch.arange(at.shape[1], device=x.device) < n
            x, h, cos, sin = x[wanted], h.take_along_dim(at[..., None], 1), cos[at], sin[at]
            cos, sin = cos[:, None], sin[:, None]                              # (B, 1, W, C/2H)
        q = rotate(self.q_proj(h).unflatten(-1, (self.n_head, -1)).transpose(1, 2), cos, sin)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)[real]
        x = x + self.attn_out(h)                                               # (B, S, C), (n, C)
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))

def rotate(x, cos, sin):  # rotary position embedding, half-split: pairs are (i, i + half)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

class MaskedDiffusionLM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.ff_out = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        half = config.n_embd // config.n_head // 2
        frequency = config.rope_theta ** (-torch.arange(half) / half)          # (half,)
        angle = torch.arange(config.max_length)[:, None] * frequency           # (max_length, half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        nn.init.normal_(self.wte.weight, std=config.n_embd ** -0.5)
        nn.init.normal_(self.ff_out.weight, std=0.02)

    def forward(self, tokens, wanted=None):
        """(B, S) token ids -> (B, S, V) logits; with `wanted` (B, S) for those n only, (n, V)."""
        n, most = tokens.shape[1], self.config.max_length
        if n > most:
            raise ValueError(f"a canvas of {n} tokens is longer than this model's {most}")
        cos, sin, x = self.cos[:n], self.sin[:n], self.wte(tokens)             # (B, S, C)
        for block in self.blocks:       # the last one is asked only for what is wanted
            x = block(x, cos, sin, wanted if block is self.blocks[-1] else None)
        logits = self.ff_out(self.ln_f(x)).float()                             # (B, S, V), (n, V)
        # The one place where MASK is forbidden: no decoder can draw it, no loss can reward it.
        logits[..., self.config.mask_id] = -torch.inf
        return logits

def draw_masks(n_rows, length, generator=None):
    """The forward process. Returns t (B,) in (0, 1] and is_masked (B, L), each True with
    probability t. t is stratified: one draw in each of B equal slices, which evens out the loss."""
    t = (torch.arange(n_rows) + (1 - torch.rand(n_rows, generator=generator))) / n_rows
    return t, torch.rand(n_rows, length, generator=generator) < t[:, None]

def diffusion_loss(model, prompt, completion, t, is_masked):
    """Masked cross-entropy weighted by 1/t, over B * L (LLaDA, eq. 3). The prompt is never masked.
    prompt (B, P), completion (B, L), t (B,), is_masked (B, L) -> nats per completion token."""
    t, is_masked = t.to(prompt.device), is_masked.to(prompt.device)
    noisy = completion.masked_fill(is_masked, model.config.mask_id)
    wanted = F.pad(is_masked, (prompt.shape[1], 0))                            # (B, P+L)
    logits = model(torch.cat([prompt, noisy], dim=1), wanted)                  # (n, V)
    nll = F.cross_entropy(logits, completion[is_masked], reduction="none")     # (n,)
    return (nll / t.repeat_interleave(is_masked.sum(1))).sum() / completion.numel()

def distinct(rows):
    """Distinct rows: (B, N) int64 -> (U, N), in any order, and which (B,) of them each row is.
    rows.unique(dim=0, return_inverse=True) does so too, but sorts N numbers a row, not one."""
    factors = torch.randint(2**62, rows.shape[1:], generator=torch.Generator().manual_seed(0))
    _, which = (rows * factors.to(rows.device)).sum(1).unique(return_inverse=True)
    example = which.new_empty(int(which.max()) + 1 if len(rows) else 0)
    found = rows[example.scatter_(0, which, torch.arange(len(rows), device=rows.device))]
    if not found[which].equal(rows):    # two rows with the same sum, some day
        return rows.unique(dim=0, return_inverse=True)
    return found, which

def chunks(model, canvas, *others, budget=BUDGET):
    """Split tensors of U rows into pieces small enough for the memory, whatever the model."""
    size = max(1, budget // (model.config.n_layer * model.config.n_embd * canvas.shape[1]))
    for i in range(0, len(canvas), size):
        yield [x[i:i + size] for x in (canvas, *others)]

def write_whole(path, data):
    """Beside it, onto the disk, then renamed: at any moment the old file is there or the new one.
    Raises OSError, also before it would replace what is no file (/dev/null)."""
    path = os.path.realpath(path)       # a link stays a link
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} is no regular file")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

def save(path, value):
    """value: dicts, lists, texts, numbers and tensors. The file: FORMAT, 8 bytes for the length of
    a JSON text, the text with a placeholder for each tensor, the tensors' bytes, and the SHA-256 of
    all that. (No pickle: even with weights_only, one of a megabyte ends torch.load in a crash.)"""
    arrays = []
    def placeholder(x):
        arrays.append(torch.as_tensor(x).detach().cpu().numpy())
        return {"dtype": arrays[-1].dtype.str, "shape": arrays[-1].shape}
    text = json.dumps(value, default=placeholder).encode()
    size = len(text).to_bytes(8, "little")
    data = b"".join([FORMAT, size, text, *(a.tobytes() for a in arrays)])
    write_whole(path, data + hashlib.sha256(data).digest())

def load(path, rebuild=dict, most=2**40):
    """The way back from save; -> rebuild(value). Raises OSError, or ValueError in one line for what
    is not, to the last bit, what save has written, or has more than `most` bytes."""
    if not os.path.isfile(path) or os.path.getsize(path) > most:    # a pipe would wait for ever
        raise FileNotFoundError(f"{path} is no file, or a huge one; python train.py makes one")
    with open(path, "rb") as file:      # what begins otherwise may have no end
        data = file.read() if file.read(len(FORMAT)) == FORMAT else b""
    body, start = memoryview(data)[:-32], 8 + int.from_bytes(data[:8], "little")
    def tensor(x):      # JSON's keys are texts; the optimizers' are numbers
        nonlocal start
        if x.keys() != {"dtype", "shape"}:
            numbers = all(k.isdecimal() and type(v) is dict for k, v in x.items())
            return {int(k): v for k, v in x.items()} if numbers else x
        if x["dtype"] not in ("<f4", "<f8", "<i8", "|u1", "|b1") or min(x["shape"], default=0) < 0:
            raise ValueError("no kind of tensor")
        a = np.frombuffer(body, x["dtype"], math.prod(x["shape"]), start)   # or it is not there
        start += a.nbytes
        return torch.from_numpy(a.reshape(x["shape"]).copy())
    try:
        if hashlib.sha256(FORMAT + body).digest() != data[-32:] or start > most // 256:
            raise ValueError("the SHA-256 differs")
        value = json.loads(data[8:start], object_hook=tensor)
        if type(value) is not dict or start != len(body):
            raise ValueError("no dict, or bytes that belong to nothing")
        return rebuild(value)
    except Exception as error:
        raise ValueError(f"{path} is damaged or no {FORMAT.decode().strip()} ({str(error)[:60]!r}"
                         "): python train.py makes a new one where it is out of the way") from None

def is_sound(weights):      # (names: tensors) no nan, nothing beyond all bounds
    largest = torch.stack([w.abs().max() for w in weights.values()]).max()
    return all(w.dtype == torch.float32 for w in weights.values()) and bool(largest < 1e4)

def save_checkpoint(path, model, task, **info):
    """task: what data.load_task needs; info: plain values."""
    save(path, {"config": asdict(model.config), "model": model.state_dict(), "task": task,
                "info": info})

def load_checkpoint(path, device="cpu"):
    """-> model in eval mode, task dict, info dict. Raises OSError, or ValueError in one line."""
    def rebuild(saved):
        config, weights = ModelConfig(**saved["config"]), saved["model"]
        V, C, H, n = config.vocab_size, config.n_embd, config.n_hidden, config.n_layer
        size = 2 * V * C + C + n * (4 * C * C + 3 * C * H + 2 * C)
        if min(V, C, H, n) < 1 or config.max_length > 2**14 or not 0 < config.norm_eps < 1 or (
                (len(weights), sum(w.numel() for w in weights.values())) != (9 * n + 3, size)) or (
                not is_sound(weights)):     # all this before it takes memory
            raise ValueError("weights are missing, not of this size, nan, or beyond all bounds")
        model = MaskedDiffusionLM(config).eval()
        model.load_state_dict(weights)
        if model(torch.zeros(1, min(config.max_length, 64), dtype=torch.long)).isnan().any():
            raise ValueError("it does not run")
        return model.to(device), dict(saved["task"]), dict(saved["info"])
    return load(path, rebuild, most=2**30)
