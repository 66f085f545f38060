"""LLaDA itself: published weights in and out, its tokenizer and chat, how it is judged.

    python sample.py --llada FOLDER --prompt "How many legs have three cats?"
    python eval_gsm8k.py --llada FOLDER --data test.jsonl       JustGRPO's own evaluation
    python train.py --stage grpo --llada FOLDER ...     JustGRPO on it, if it is small
    python experiments/llada_folder.py FOLDER --checkpoint out/justgrpo.pt   ours, as theirs

The network in model.py is LLaDA's, and so are the names: theirs is ours with
"model.transformer." before it. FOLDER has config.json, the weights as safetensors, in
one file or in shards with an index, and tokenizer.json with tokenizer_config.json. All
else about the published models, and what other engines want: docs/llada.md.

Needs more packages: pip install -r requirements-llada.txt
"""
import contextlib
import functools
import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from unittest.mock import patch

import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer

from data import Task, short
from model import ALONE, MaskedDiffusionLM, ModelConfig, weight_shapes
from runs import write_whole

PREFIX = "model.transformer."
SHARD = 3 * 10**9       # bytes of a file of weights, at most
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

# ----------------------------------------------------------------------------------------
# config.json

# Of LLaDA-8B-Instruct: all its keys, in its order.
PUBLISHED = {
    "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"], "attention_dropout": 0.0,
    "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
    "auto_map": {"AutoConfig": "configuration_llada.LLaDAConfig",
                 "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
                 "AutoModel": "modeling_llada.LLaDAModelLM"},
    "bias_for_layer_norm": False, "block_group_size": 1, "block_type": "llama",
    "d_model": 4096, "embedding_dropout": 0.0, "embedding_size": 126464,
    "eos_token_id": 126081, "flash_attention": False, "include_bias": False,
    "include_qkv_bias": False, "init_cutoff_factor": None, "init_device": "meta",
    "init_fn": "mitchell", "init_std": 0.02, "input_emb_norm": False,
    "layer_norm_type": "rms", "layer_norm_with_affine": True, "mask_token_id": 126336,
    "max_sequence_length": 4096, "mlp_hidden_size": 12288, "mlp_ratio": 4,
    "model_type": "llada", "multi_query_attention": None, "n_heads": 32,
    "n_kv_heads": 32, "n_layers": 32, "pad_token_id": 126081, "precision": "amp_bf16",
    "residual_dropout": 0.0, "rms_norm_eps": 1e-5, "rope": True,
    "rope_full_precision": True, "rope_theta": 500000.0, "scale_logits": False,
    "transformers_version": "4.46.3", "use_cache": False, "vocab_size": 126464,
    "weight_tying": False,
}
# Ours: theirs. (vocab_size is another matter: see read_config.)
SIZES = {"mask_id": "mask_token_id", "eos_id": "eos_token_id",
         "max_length": "max_sequence_length", "n_layer": "n_layers", "n_head": "n_heads",
         "n_embd": "d_model", "n_hidden": "mlp_hidden_size"}
NUMBERS = {"rope_theta": "rope_theta", "norm_eps": "rms_norm_eps"}
# Keys that must be as published, and what another value would be.
MUST = {
    "activation_type": "another activation", "alibi": "ALiBi",
    "attention_layer_norm": "norms of queries and keys",
    "bias_for_layer_norm": "biases in the norms", "block_group_size": "other names",
    "block_type": "another block", "include_bias": "biases", "include_qkv_bias": "biases",
    "input_emb_norm": "scaled embeddings", "layer_norm_type": "another norm",
    "layer_norm_with_affine": "norms without weights",
    "multi_query_attention": "grouped keys and values",
    "rope": "no rotary embedding",
    "rope_full_precision": "a rotary embedding in low precision",
    "scale_logits": "scaled logits", "weight_tying": "a tied head",
}
# The other keys change no logit: of training, of how it is computed, of who wrote the
# file. So do these, of forks, and of the library that saves it.
HARMLESS = {
    "_attn_implementation_autoset", "_name_or_path", "bos_token_id", "dtype",
    "flash_attn_varlen", "return_dict", "tie_word_embeddings", "tokenizer_class",
    "torch_dtype",
}
MIXTURE = "its layers are mixtures of experts, with q_norm and k_norm"
SECOND = ("LLaDA 2: experts, a fused query_key_value, rotary on a part of each head, "
          "attention that is causal from block to block")
SHIFTED = "Dream: its logits are shifted by one, those at position i are of position i + 1"
# By an architecture or a model_type. (LLaDA-MoE says "llada", too.)
OTHERS = {"LLaDAMoEModelLM": MIXTURE, "LLaDAMoEModel": MIXTURE, "lladamoe": MIXTURE,
          "LLaDA2MoeModelLM": SECOND, "llada2_moe": SECOND, "llada2_moe_veomni": SECOND,
          "DreamModel": SHIFTED, "DreamForCausalLM": SHIFTED, "Dream": SHIFTED}


def read_json(path):
    """The dict in a file. Raises ValueError, in one line."""
    if not path.is_file():
        raise ValueError(f"{path} is not there: a folder of LLaDA's layout has it")
    if path.stat().st_size > 2**26:
        raise ValueError(f"{path} has more than 64 MB")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no dict")
    return found


def read_config(folder):
    """config.json -> ModelConfig. Raises ValueError, which names the key, for what
    model.py is not."""
    path = Path(folder) / "config.json"
    return config_from(read_json(path), path)


def config_from(config, path):
    """The dict of a config.json, which is at path -> ModelConfig."""
    refuse_others(config, path)
    check_keys(config, path)
    sizes = {ours: whole_number(config, theirs, path) for ours, theirs in SIZES.items()}
    numbers = {ours: number_in(config, theirs, path) for ours, theirs in NUMBERS.items()}
    rows = n_tokens = whole_number(config, "vocab_size", path)
    # Rows beyond the vocabulary make the matrices a rounder size; none is a token.
    if config.get("embedding_size") is not None:
        rows = whole_number(config, "embedding_size", path)
    if rows < n_tokens:
        raise ValueError(f"{path}: embedding_size is {rows}, vocab_size {n_tokens}")
    if sizes["n_embd"] % (2 * sizes["n_head"]):
        raise ValueError(f"{path}: d_model is {sizes['n_embd']}, no multiple of twice "
                         f"n_heads, {sizes['n_head']}")
    for key in ("mask_id", "eos_id"):
        if sizes[key] >= n_tokens:
            raise ValueError(f"{path}: {SIZES[key]} is {sizes[key]}, vocab_size {n_tokens}")
    if sizes["mask_id"] == sizes["eos_id"]:
        raise ValueError(f"{path}: mask_token_id and eos_token_id are both {sizes['mask_id']}")
    return ModelConfig(rows, n_padding=rows - n_tokens, **sizes, **numbers)


def check_keys(config, path):
    """Raises ValueError for a key that is not known, and for one that makes another
    network."""
    unknown = sorted(config.keys() - PUBLISHED.keys() - HARMLESS)
    if unknown:
        raise ValueError(f"{path}: unknown {', '.join(map(short, unknown[:5]))}: is it LLaDA? "
                         "If it changes nothing, take it out")
    for key, otherwise in MUST.items():
        accepted = [PUBLISHED[key]] if PUBLISHED[key] else [False, None]
        if key not in config:       # then theirs takes a default, often another value
            raise ValueError(f"{path}: {key} is missing")
        if config[key] not in accepted:
            raise ValueError(f"{path}: {key} is {short(config[key])}, where LLaDA has "
                             f"{accepted[0]!r}: {otherwise}, which model.py has not")
    groups = config.get("n_kv_heads")
    if groups is not None and groups != config.get("n_heads"):
        raise ValueError(f"{path}: n_kv_heads is {short(groups)}, n_heads "
                         f"{short(config.get('n_heads'))}: grouped keys and values, which "
                         "model.py has not")


def refuse_others(config, path):
    """Raises ValueError for another family than the dense LLaDA."""
    names = config.get("architectures")
    names = [*(names if isinstance(names, list) else [names]), config.get("model_type")]
    for name in names:
        if isinstance(name, str) and name in OTHERS:
            raise ValueError(f"{path} is of {name}, which is not the dense LLaDA: "
                             f"{OTHERS[name]}")
    if "num_experts" in config:
        raise ValueError(f"{path} has num_experts: {MIXTURE}")
    is_llada = config.get("model_type") == "llada"
    if not is_llada or config.get("architectures") not in (["LLaDAModelLM"], None):
        raise ValueError(f"{path} is of model_type {short(config.get('model_type'))}, "
                         f"architectures {short(config.get('architectures'))}: not LLaDA")


def whole_number(config, key, path):
    value = config.get(key)
    least = 0 if key.endswith("_token_id") else 1
    most = {"max_sequence_length": 2**14, "n_layers": 2**12}.get(key, 2**24)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{path}: {key} is {short(value)}, where a whole number from {least} "
                         f"to {most} is needed")
    return value


def number_in(config, key, path):
    value = config.get(key)
    if type(value) not in (int, float) or not 0 < value < 1e12:
        raise ValueError(f"{path}: {key} is {short(value)}, where a number above 0 is needed")
    return float(value)

# ----------------------------------------------------------------------------------------
# weights in


def load_llada(folder, device="cpu", dtype=None):
    """The model in a folder of LLaDA's layout, in eval mode.

    dtype: None is that of the file. One tensor at a time is read, checked, converted and
    put onto the device; on a CPU, without conversion, it stays where it is, in the mapped
    file. Raises OSError, or ValueError in one line, which names what is wrong.
    """
    folder, config = Path(folder), read_config(folder)
    places = find_tensors(folder)
    shapes = {PREFIX + name: shape for name, shape in weight_shapes(config)}
    check_names(folder, places, shapes)
    stored = check_headers(places, shapes)
    if dtype is None and len(stored) > 1:
        raise ValueError(f"{folder}: tensors are of {', '.join(sorted(stored))}: give a --dtype")
    dtype = dtype or DTYPES[min(stored)]
    weights = {}
    for shard, names in by_file(places).items():
        with opened(shard) as file:
            for name in names:
                weight = file.get_tensor(name)
                # (Of these two both are nan if one number is.)
                if not torch.stack(weight.aminmax()).isfinite().all():
                    raise ValueError(f"{shard}: {name} has what is no number")
                weights[name.removeprefix(PREFIX)] = weight.to(device, dtype)
    model = model_of(config, weights).to(device)      # (cos and sin; all else is there)
    canvas = torch.tensor([[config.eos_id, config.mask_id]], device=device)
    with torch.no_grad():
        if model(canvas).log_softmax(-1).isnan().any():
            raise ValueError(f"{folder} does not run: its logits are no numbers")
    return model


def by_file(places):
    """{path of a file: the names of its tensors}."""
    found = {}
    for name, shard in sorted(places.items()):
        found.setdefault(shard, []).append(name)
    return found


def model_of(config, weights):
    """The network with these weights, which are taken as they are, not copied."""
    # On the meta device weights take no memory, and nothing is drawn. (Its normal_ would
    # import half of torch.)
    as_it_is = patch.object(torch.Tensor, "normal_", lambda weight, *_, **__: weight)
    with ALONE, as_it_is, torch.device("meta"):
        model = MaskedDiffusionLM(config).eval()
    model.load_state_dict(weights, assign=True)
    return model


def find_tensors(folder):
    """Where each tensor is: {name: path of its file}. Raises ValueError."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.exists():
        if not single.is_file():
            raise ValueError(f"{folder} has neither {single.name} nor {index.name}"
                             + hint(folder))
        return {name: single for name in names_in(single)}
    if single.exists():
        raise ValueError(f"{folder} has both {single.name} and {index.name}: which?")
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(
            isinstance(file, str) and file == Path(file).name for file in listed.values()):
        raise ValueError(f"{index} has no weight_map, of names of files beside it")
    places = {}
    for file in sorted(set(listed.values())):
        shard = folder / file
        if not shard.is_file():
            raise ValueError(f"{index} lists {file}, which is not there")
        for name in names_in(shard):
            if listed.get(name) != file:
                raise ValueError(f"{shard} has {short(name)}, which is not there by "
                                 f"{index.name}")
            places[name] = shard
    absent = sorted(listed.keys() - places.keys())
    if absent:
        raise ValueError(f"{folder / listed[absent[0]]} has no {short(absent[0])}, which "
                         f"{index.name} lists")
    return places


def hint(folder):
    """What else may be there in place of weights."""
    if (folder / "adapter_config.json").exists():
        return ": it is a LoRA adapter, merge it into its model first"
    if any(folder.glob("pytorch_model*.bin")):
        return ": pickles (.bin) are not read, save it as safetensors"
    return ""


def names_in(shard):
    with opened(shard) as file:
        return list(file.keys())


@contextlib.contextmanager
def opened(shard):
    """A file of safetensors. Raises ValueError for one that is none, or not whole."""
    try:
        with safe_open(shard, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{shard} is no safetensors file, or not all of it ({error})"
                         ) from None


def check_names(folder, places, shapes):
    """Raises ValueError unless exactly the tensors of the network are there."""
    for what, names in (("missing", shapes.keys() - places.keys()),
                        ("not LLaDA's", places.keys() - shapes.keys())):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{folder}: {what}: {short(min(names))}{more}")


def check_headers(places, shapes):
    """The names of their dtypes, before any tensor is read. Raises ValueError for another
    shape than config.json's, or a dtype that is not LLaDA's."""
    found = set()
    for shard, names in by_file(places).items():
        with opened(shard) as file:
            for name in names:
                header = file.get_slice(name)
                shape, dtype = tuple(header.get_shape()), header.get_dtype()
                if shape != shapes[name]:
                    raise ValueError(f"{shard}: {name} has the shape {shape}, where "
                                     f"config.json asks for {shapes[name]}")
                if dtype not in DTYPES:
                    raise ValueError(f"{shard}: {name} is of {dtype}, not of one of "
                                     f"{', '.join(DTYPES)}: quantized weights are not read")
                found.add(dtype)
    return found

# ----------------------------------------------------------------------------------------
# weights out

# What stands beside the weights, and goes with them.
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
              "chat_template.jinja", "generation_config.json", "configuration_llada.py",
              "modeling_llada.py")


def export_llada(model, folder, source=None, overwrite=False):
    """Write a model, LLaDA or a small one trained here, in LLaDA's layout.

    source: the folder that it came from, or what read_companions made of it: tokenizer,
    code and keys go along. overwrite: an earlier export. Raises ValueError if the folder
    holds a model, OSError if it can't be written.
    """
    if source and not isinstance(source, dict):
        source = read_companions(source)
    if overwrite:
        for path in model_files(folder):        # config.json first
            path.unlink()
    weights, dtype = model.state_dict(), model.wte.weight.dtype
    write_llada(folder, model.config, lambda name: weights[name].contiguous().cpu(), dtype,
                source)


def read_companions(folder):
    """{name: bytes} of what stands beside the weights, config.json included."""
    found = {}
    for name in ("config.json", *COMPANIONS):
        path = Path(folder) / name
        if path.exists():
            if not path.is_file() or path.stat().st_size > 2**26:
                raise ValueError(f"{path} is no file, or one of more than 64 MB")
            found[name] = path.read_bytes()
    return found


def model_files(folder):
    """Those of a model, in a folder that may not be there."""
    return [path for pattern in ("config.json", "tokenizer.json", "model*.safetensors",
                                 "model.safetensors.index.json")
            for path in sorted(Path(folder).glob(pattern))]


def write_llada(folder, config, weight_of, dtype, companions=None, most=SHARD):
    """A folder of LLaDA's layout. config.json comes last: without it, it is not whole.

    weight_of(name) makes a weight when it is due, so that never more than a file's, most
    bytes, are in memory; companions: see read_companions. Raises ValueError for a config
    that load_llada would refuse, and for a folder that holds a model.
    """
    folder, companions = Path(folder), dict(companions or {})
    keys = json.loads(companions.pop("config.json", b"{}"))
    own = json_from(config, dtype, keys)
    config_from(own, folder / "config.json")
    taken = model_files(folder)
    if taken:
        raise ValueError(f"{taken[0]} is there: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in companions.items():
        write_whole(folder / name, data)
    shards = plan_shards(config, dtype.itemsize, most)
    n, size, listed = len(shards), 0, {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors"
        if n > 1:
            file = f"model-{number:05}-of-{n:05}.safetensors"
        tensors = {PREFIX + name: weight_of(name) for name in names}
        try:
            save_file(tensors, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{folder / file} can't be written: {error}") from None
        size += sum(tensor.nbytes for tensor in tensors.values())
        listed.update(dict.fromkeys(tensors, file))
    if n > 1:
        index = {"metadata": {"total_size": size}, "weight_map": listed}
        write_whole(folder / "model.safetensors.index.json", as_json(index))
    write_whole(folder / "config.json", as_json(own))
    for file in set(listed.values()):       # which the package lets nobody else read
        shutil.copymode(folder / "config.json", folder / file)


def plan_shards(config, itemsize, most):
    """Names of weights, in as many lists as there will be files."""
    shards, size = [[]], 0
    for name, shape in weight_shapes(config):
        n_bytes = math.prod(shape) * itemsize
        if shards[-1] and size + n_bytes > most:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += n_bytes
    return shards


def json_from(config, dtype, keys):
    """A ModelConfig as the dict in config.json; keys: of another such dict."""
    own = {theirs: getattr(config, ours) for ours, theirs in {**SIZES, **NUMBERS}.items()}
    own.update(embedding_size=config.vocab_size, n_kv_heads=config.n_head,
               vocab_size=config.vocab_size - config.n_padding)
    own["torch_dtype"] = str(dtype).removeprefix("torch.")
    if "dtype" in keys:     # its newer name
        own["dtype"] = own["torch_dtype"]
    return {**PUBLISHED, "pad_token_id": config.eos_id, **keys, **own}


def as_json(value):
    return (json.dumps(value, indent=2) + "\n").encode()

# ----------------------------------------------------------------------------------------
# training

# Of each parameter, in float32: the weight, its gradient, Adam's two averages, the base's;
# weight and averages in the state that --resume goes on from, and twice more while that
# is written.
BYTES_TO_TRAIN = 4 * (1 + 1 + 2 + 1 + 3 * 3)


def check_memory(folder, device):
    """A line about the memory that training takes. Raises ValueError if that is not there."""
    n = sum(math.prod(shape) for _, shape in weight_shapes(read_config(folder)))
    need, free = n * BYTES_TO_TRAIN, free_memory(device)
    found = (f"{n:,} parameters: training takes about {need / 1e9:.2f} GB of memory, "
             f"{free / 1e9:.2f} GB are free")
    if need > free:
        raise ValueError(f"{found}: too large for this machine; docs/llada.md says how an "
                         "engine for many GPUs takes over this folder as it is")
    return found


def free_memory(device):
    """Bytes that a program can still take."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:        # Linux; what only caches files is free, too
        text = Path("/proc/meminfo").read_text()
        return 1024 * int(re.search(r"MemAvailable: *([0-9]+) kB", text)[1])
    except (OSError, TypeError):
        return math.inf

# ----------------------------------------------------------------------------------------
# tokenizer and chat


ANY_QUESTION = "\ue000"      # a private character, which stands in no template


class Vocabulary:
    """tokenizer.json, with what a task asks of tiktoken's Encoding; and the chat.

    Raises ValueError.
    """

    def __init__(self, folder):
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{path} is not there: copy the tokenizer beside the weights")
        # Two, for in a text of the user's special tokens are no special tokens.
        self.plain, self.special = read_tokenizer(path), read_tokenizer(path)
        self.plain.encode_special_tokens = True
        known = self.plain.get_vocab(with_added_tokens=True)
        self.n_vocab = 1 + max(known.values(), default=-1)
        self.template, self.bos = read_template(Path(folder))

    def encode_ordinary(self, text):
        return encode_by(self.plain, text)

    def encode(self, text):
        """Token ids; special tokens in the text are these tokens."""
        return encode_by(self.special, text)

    def decode(self, ids):
        """The text, without special tokens; ids that the file does not know are nothing."""
        return self.plain.decode(list(ids))

    def decode_single_token_bytes(self, token):
        return self.plain.decode([token], skip_special_tokens=False).encode()

    def chat(self, question):
        """The prompt that asks a question, as text: one turn of the user's, and the header
        of the answer. Without a template, as a base may be, the question alone."""
        if self.template is None:
            return question
        known = {"bos_token": self.bos} if isinstance(self.bos, str) else {}
        try:
            return self.template.render(messages=[{"role": "user", "content": question}],
                                        add_generation_prompt=True, **known)
        except Exception as error:      # whatever a template does
            raise ValueError(f"the chat template failed: {short(error)}") from None

    @functools.cached_property
    def around(self):
        """What the template puts before a question, a mark, and what it puts behind."""
        return self.chat(ANY_QUESTION).partition(ANY_QUESTION)

    def chat_ids(self, question):
        """Token ids of that prompt. Special tokens are the template's alone: what looks
        like one in the question is text."""
        if self.template is None:
            return self.encode_ordinary(question)
        before, mark, after = self.around       # without the mark it has dropped the question
        prompt = self.chat(question)
        if not (mark and prompt.startswith(before) and prompt.endswith(after)):
            raise ValueError("the chat template does not just put something around a question")
        content = prompt[len(before):len(prompt) - len(after)]
        return self.encode(before) + self.encode_ordinary(content) + self.encode(after)


def read_tokenizer(path):
    try:
        tokenizer = Tokenizer.from_file(str(path))
        # What may be left in the file of somebody's training or batches.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if hasattr(tokenizer.model, "dropout"):
            tokenizer.model.dropout = None
    except BaseException as error:      # a panic of the package's is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"{path} is no tokenizer: {short(error)}") from None
    return tokenizer


def encode_by(tokenizer, text):
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except BaseException as error:      # as in read_tokenizer
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"no tokens for {short(text)}: {short(error)}") from None


def read_template(folder):
    """The chat template, compiled (None without one), and the text of bos_token."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    source, bos = config.get("chat_template"), config.get("bos_token")
    if isinstance(source, list):        # several, which have names
        named = {each.get("name"): each for each in source if isinstance(each, dict)}
        source = named.get("default", {}).get("template")
    own = folder / "chat_template.jinja"
    if own.is_file():
        path, source = own, own.read_bytes().decode("utf-8", "replace")
    bos = bos.get("content") if isinstance(bos, dict) else bos
    if source is None:
        return None, bos
    try:
        # The sandbox can reach nothing, and changes nothing.
        sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        return sandbox.from_string(source), bos
    except Exception as error:      # many nested blocks are an error of Python's
        raise ValueError(f"{path}: the chat template is none: {short(error)}") from None

# ----------------------------------------------------------------------------------------
# how JustGRPO's own evaluation reads and judges an answer (LeapLabTHU/JustGRPO at
# eebe50e; which text is read, at 1a2fddb)


def final_answer(text):
    """The answer in a text, as a text, "" if there is none; the first of these that is
    found: between "final answer is $" and "$. I hope"; the last box; what follows "he
    answer is"; what follows "final answer is"; the last number."""
    start, end = "final answer is $", "$. I hope"
    if start in text and end in text:
        return text.split(start, 1)[1].split(end, 1)[0]
    if "boxed" in text:
        return in_box(text.rpartition("boxed")[2])
    for phrase in ("he answer is", "final answer is"):
        if phrase in text:
            return text.rpartition(phrase)[2].strip()
    numbers = re.findall(ONE_NUMBER, text.replace(",", ""))
    return numbers[-1] if numbers else ""


def in_box(text):
    """What stands in the braces that a text begins with, or, without, before a $."""
    if not text.startswith("{"):
        return text.split("$")[0].strip()
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return text[1:i]
    return text[1:]


ONE_NUMBER = r"-?\d*\.?\d+"
FRACTION = re.compile(rf"\\[dt]?frac\{{({ONE_NUMBER})\}}\{{({ONE_NUMBER})\}}")


def as_number(answer):
    """The one number in an answer, a fraction counts as one; None if there is none, or
    several. Thousands' commas and signs of money and percent are nothing, and so are
    words: units, mostly."""
    text = FRACTION.sub(r"\1/\2", re.sub(r"[,$%]", "", answer))
    found = re.findall(rf"({ONE_NUMBER})(?:\s*/\s*({ONE_NUMBER}))?", text)
    if len(found) != 1:
        return None
    top, bottom = float(found[0][0]), float(found[0][1] or 1)
    return top / bottom if bottom else None


def same_number(answer, gold):
    """Whether an answer (a text) is a number (a text, or a number): to one part in 10^4;
    a percentage is its fraction, too, so that 25, 0.25 and 2500 are all the same."""
    value = as_number(answer)
    if value is None:
        return False
    return any(math.isclose(float(gold), other, rel_tol=1e-4)
               for other in (value / 100, value, value * 100))

# ----------------------------------------------------------------------------------------
# the task: GSM8K's questions in a chat


class Chat(Task):
    """A question is the user's turn of a chat; its prompt is not padded, so that prompts
    have a length each; the answer is judged as JustGRPO does.

    with_prompt: look for the answer in prompt and completion together, as their code did
    until July 2026 (commit 1a2fddb). Raises ValueError.
    """
    name = "llada"
    has_hashes = False
    is_padded = False

    def __init__(self, folder, config, completion_length=256, with_prompt=False):
        self.settings = {"completion_length": completion_length, "with_prompt": with_prompt}
        self.folder, self.companions = Path(folder), read_companions(folder)
        self.tokenizer, self.config = Vocabulary(folder), config
        # Asked for by what fits, what is batched, and at last by prompts.
        self.chat_ids = functools.cache(self.tokenizer.chat_ids)
        self.completion_length, self.with_prompt = completion_length, with_prompt
        self.prompt_length = config.max_length - completion_length      # at most
        n_tokens = config.vocab_size - config.n_padding
        if self.tokenizer.n_vocab > n_tokens:
            raise ValueError(f"{folder}: the tokenizer has {self.tokenizer.n_vocab} tokens, "
                             f"the network {n_tokens}")
        if self.prompt_length < 1:
            raise ValueError(f"--length {completion_length}: of the canvas of "
                             f"{config.max_length} tokens nothing is left for a prompt")

    @property
    def n_vocab(self):
        return self.config.vocab_size

    @property
    def mask_id(self):
        return self.config.mask_id

    @property
    def eos_id(self):
        return self.config.eos_id

    def digest(self):
        """SHA-256 of all that the texts depend on: config, weights, tokenizer, chat."""
        found = hashlib.sha256()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json",
                     "chat_template.jinja"):
            data = self.companions.get(name, b"")
            found.update(f"{name} {len(data)} ".encode() + data)
        for path in by_file(find_tensors(self.folder)):
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(2**20), b""):
                    found.update(block)
        return found.hexdigest()

    def export(self, model, folder):
        """Write a model that was trained from this folder's."""
        export_llada(model, folder, self.companions, overwrite=True)

    def length_of(self, question):
        return len(self.chat_ids(question))

    def fits(self, row, split):
        """Whatever the split: here nothing is trained on a solution."""
        return self.length_of(row["question"]) <= self.prompt_length

    def prompts(self, questions, length=None):
        """Token ids (B, P), never padded to a length. Raises ValueError unless all have
        one."""
        rows = [self.chat_ids(question) for question in questions]
        longest = max(len(row) for row in rows)
        if longest > self.prompt_length:
            raise ValueError(f"a prompt of {longest} tokens where {self.prompt_length} fit: "
                             "shorten it, or take a smaller --length")
        if len({len(row) for row in rows}) > 1:
            raise ValueError("prompts of different lengths, which are not padded here")
        return torch.tensor(rows, dtype=torch.long)

    def extracted(self, text):
        answer = final_answer(text)
        return None if as_number(answer) is None else answer

    def is_right(self, text, answer):
        return same_number(final_answer(text), answer)

    def judged_text(self, text, problem):
        if not self.with_prompt:
            return text
        return self.tokenizer.decode(self.chat_ids(problem["question"])) + text
