"""LLaDA's weights in and out, its tokenizer and chat, how answers are judged, the scripts on it.

tests/fixtures/llada has what the reference code gives, and how that was made.
"""
import argparse
import json
import math
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

REASON = "pip install -r requirements-llada.txt"
pytest.importorskip("safetensors", reason=REASON)
pytest.importorskip("tokenizers", reason=REASON)

import safetensors
from safetensors.torch import load_file, save_file

import eval_gsm8k
import llada
import sample
import train
from data import Worksheet, read_jsonl
from experiments import llada_folder
from experiments.llada_folder import write_random
from grpo import Arm, Recipe, grpo
from llada import (Chat, Vocabulary, export_llada, final_answer, load_llada, plan_shards,
                   read_config, same_number)
from model import MaskedDiffusionLM, ModelConfig, weight_shapes
from runs import read_csv
from sample import Decoder, generate

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = Path(__file__).parent / "fixtures" / "llada"
TINY, TOKENIZER = FIXTURES / "tiny", FIXTURES / "tokenizer"
EXPECTED = json.loads((TINY / "expected.json").read_text())["cases"]
IDS = json.loads((TOKENIZER / "expected.json").read_text())
MASK = 62
ROWS = [    # in GSM8K's file format
    {"question": "Tom has 3 cats. Each has 4 legs. How many legs?", "answer": "3*4=12\n#### 12"},
    {"question": "Ann has 5 apples and eats 2. How many are left?", "answer": "5-2=3\n#### 3"},
    {"question": "What is 7 and 8?", "answer": "#### 15"},
    {"question": "A box of eggs costs $2.50. What do 4 boxes cost?", "answer": "#### 10"},
    {"question": "What is 9 and 8?", "answer": "#### 17"},
]


@pytest.fixture(scope="module")
def tiny():
    return load_llada(TINY)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with random weights and the fixture's tokenizer."""
    folder = tmp_path_factory.mktemp("llada") / "small"
    write_random(folder, n_embd=16, n_hidden=48, max_length=160)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def copy(tmp_path):
    """The tiny fixture, to be changed."""
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def change(folder, **keys):
    """Set keys of config.json; those that are `...` are taken out."""
    config = json.loads((folder / "config.json").read_text()) | keys
    config = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))


def rewrite(folder, changed):
    """Replace the weights by what a function makes of {name: tensor}."""
    weights = load_file(folder / "model.safetensors")
    changed(weights)
    save_file(weights, folder / "model.safetensors")


def in_shards(folder, n=3):
    """Spread the weights over n files, by turns; returns their names."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
    weight_map = {name: files[i % n] for i, name in enumerate(weights)}
    for file in files:
        save_file({name: weights[name] for name in weights if weight_map[name] == file},
                  folder / file)
    write_index(folder, weight_map)
    return files


def write_index(folder, weight_map):
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def weight_map(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


# ----------------------------------------------------------------------------------------------
# the network

@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case["name"])
@pytest.mark.parametrize("dtype, tolerance", [(None, 1e-4), (torch.bfloat16, 0.15)], ids=str)
def test_logits_are_the_reference_codes_in_every_column_but_the_masks(case, dtype, tolerance):
    found = load_llada(TINY, dtype=dtype)(torch.tensor(case["input_ids"]))
    expected = torch.tensor(case["logits"])
    assert found.dtype == torch.float32
    assert (found[..., MASK] == -torch.inf).all()
    others = [column for column in range(64) if column != MASK]
    assert (found - expected)[..., others].abs().max() < tolerance


@pytest.mark.parametrize("key, value", [
    ("rope_theta", 10000.0), ("rms_norm_eps", 1e-3), ("mask_token_id", 3)])
def test_rope_base_norm_epsilon_and_mask_are_the_configs(copy, tiny, key, value):
    change(copy, **{key: value})
    canvas = torch.tensor(EXPECTED[0]["input_ids"])
    changed, before = load_llada(copy)(canvas), tiny(canvas)
    assert not torch.allclose(changed, before, atol=0.03)


def test_rows_beyond_the_vocabulary_are_never_sampled(copy):
    def favour(weights):        # the head's last row: it would always win
        weights["model.transformer.ff_out.weight"][63] *= 100

    rewrite(copy, favour)
    change(copy, vocab_size=63)     # embedding_size stays 64
    model = load_llada(copy)
    assert model.config.n_padding == 1
    canvas = torch.tensor(EXPECTED[0]["input_ids"])
    assert (model(canvas)[..., 63] == -torch.inf).all()
    for temperature in (0.0, 5.0):
        drawn = generate(model, canvas, 20, Decoder("confidence", temperature=temperature))
        assert drawn.tokens.max() < 63 and not (drawn.tokens == MASK).any()


def test_weights_without_conversion_stay_in_the_mapped_file(tiny, tmp_path):
    # The file may be changed in memory, by training; on disk it is not.
    folder = Path(shutil.copytree(TINY, tmp_path / "copy"))
    before = (folder / "model.safetensors").read_bytes()
    model = load_llada(folder)
    with torch.no_grad():
        model.wte.weight.zero_()
    assert (folder / "model.safetensors").read_bytes() == before
    assert model.cos.dtype == load_llada(folder, dtype=torch.bfloat16).cos.dtype == torch.float32


def test_loading_imports_nothing_that_is_not_needed():
    # torch's meta device would import its compiler: a second, and 70 MB.
    code = ("import sys, llada; llada.load_llada(sys.argv[1]); "
            "assert 'torch._dynamo' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(TINY)], check=True, cwd=ROOT)


# ----------------------------------------------------------------------------------------------
# what is refused, by name

@pytest.mark.parametrize("keys, words", [
    (dict(n_kv_heads=2), "n_kv_heads is 2.*grouped keys"),
    (dict(multi_query_attention=True), "multi_query_attention.*grouped keys"),
    (dict(include_bias=True), "include_bias is True.*biases"),
    (dict(include_qkv_bias=True), "include_qkv_bias is True.*biases"),
    (dict(bias_for_layer_norm=True), "bias_for_layer_norm is True.*biases"),
    (dict(weight_tying=True), "weight_tying is True.*tied head"),
    (dict(weight_tying="both"), "weight_tying is 'both'.*tied head"),
    (dict(alibi=True), "alibi is True.*ALiBi"),
    (dict(activation_type="gelu"), "activation_type is 'gelu'.*another activation"),
    (dict(activation_type="swiglu"), "activation_type is 'swiglu'"),
    (dict(layer_norm_type="default"), "layer_norm_type is 'default'.*another norm"),
    (dict(layer_norm_with_affine=False), "layer_norm_with_affine is False"),
    (dict(block_type="sequential"), "block_type is 'sequential'.*another block"),
    (dict(block_group_size=2), "block_group_size is 2"),
    (dict(rope=False), "rope is False.*no rotary"),
    (dict(rope_full_precision=False), "rope_full_precision is False"),
    (dict(attention_layer_norm=True), "attention_layer_norm is True"),
    (dict(input_emb_norm=True), "input_emb_norm is True"),
    (dict(scale_logits=True), "scale_logits is True"),
    (dict(use_scheduler_head=True), "unknown 'use_scheduler_head'"),
    (dict(quantization={"bits": 4}), "unknown 'quantization'"),
    # A key that is missing has another value in theirs.
    (dict(rope=...), "rope is missing"), (dict(weight_tying=...), "weight_tying is missing"),
    (dict(rope_theta=...), "rope_theta is None"), (dict(mlp_hidden_size=None), "mlp_hidden_size"),
    (dict(rms_norm_eps=0), "rms_norm_eps is 0"), (dict(n_layers=True), "n_layers is True"),
    (dict(n_heads=5, n_kv_heads=5), "d_model.*n_heads"),
    (dict(n_heads=32, n_kv_heads=32), "d_model.*n_heads"),      # heads of one number
    (dict(embedding_size=60), "embedding_size is 60, vocab_size 64"),
    (dict(mask_token_id=64), "mask_token_id is 64"), (dict(mask_token_id=61), "are both 61"),
    (dict(max_sequence_length=2**20), "max_sequence_length"), (dict(n_layers=2**13), "n_layers"),
    (dict(eos_token_id=-1), "eos_token_id"),
    (dict(d_model=64), r"attn_norm.* has the shape \(32,\), where config.json asks for \(64,\)"),
    (dict(n_layers=1), "not LLaDA's.*blocks.1"), (dict(n_layers=3), "missing.*blocks.2"),
    # other families
    (dict(architectures=["LLaDAMoEModelLM"]), "mixtures of experts"),
    (dict(model_type="lladamoe"), "mixtures of experts"),
    (dict(num_experts=64), "num_experts.*q_norm"),
    (dict(model_type="llada2_moe", architectures=["LLaDA2MoeModelLM"]), "query_key_value"),
    (dict(model_type=..., architectures=["LLaDA2MoeModelLM"]), "block to block"),
    (dict(model_type="Dream", architectures=["DreamModel"]), "shifted by one"),
    (dict(model_type="llama", architectures=["LlamaForCausalLM"]), "'llama'.*not LLaDA"),
    (dict(model_type=...), "model_type None"), (dict(architectures=[["x"]]), "not LLaDA"),
], ids=str)
def test_a_config_of_another_network_is_refused_by_the_keys_name(copy, keys, words):
    change(copy, **keys)
    with pytest.raises(ValueError, match=words) as error:
        load_llada(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name, value", [
    ("model.transformer.ff_out.weight", 3e38), ("model.transformer.ln_f.weight", 1e38)])
def test_a_model_whose_logits_are_no_numbers_is_refused(copy, name, value):
    rewrite(copy, lambda weights: weights[name].fill_(value))
    with pytest.raises(ValueError, match="does not run"):
        load_llada(copy)


def test_tensors_of_two_dtypes_need_one_to_be_named(copy):
    def norms_in_bfloat16(weights):
        weights.update({name: weight.bfloat16() for name, weight in weights.items()
                        if "norm" in name})

    rewrite(copy, norms_in_bfloat16)
    with pytest.raises(ValueError, match="BF16, F32: give a --dtype"):
        load_llada(copy)
    assert load_llada(copy, dtype=torch.float32).wte.weight.dtype == torch.float32


@pytest.mark.parametrize("key, value", [
    ("flash_attn_varlen", True), ("flash_attention", True), ("torch_dtype", "bfloat16"),
    ("dtype", "bfloat16"), ("_name_or_path", "x"), ("use_cache", True), ("init_std", 1.0),
    ("precision", "fp32"), ("attention_dropout", 0.5), ("bos_token_id", 3), ("n_kv_heads", None),
    ("embedding_size", None), ("transformers_version", "5.0"), ("pad_token_id", 0)])
def test_a_key_that_changes_nothing_passes(copy, tiny, key, value):
    change(copy, **{key: value})
    canvas = torch.tensor(EXPECTED[0]["input_ids"])
    assert load_llada(copy)(canvas).equal(tiny(canvas))


@pytest.mark.parametrize("name, value, words", [
    ("model.transformer.blocks.0.q_proj.bias", torch.zeros(32), "not LLaDA's.*q_proj.bias"),
    ("model.transformer.blocks.1.q_norm.weight", torch.zeros(32), "not LLaDA's.*q_norm"),
    ("model.layers.0.self_attn.q_proj.weight", torch.zeros(3, 3), "not LLaDA's.*self_attn"),
    ("model.transformer.blocks.1.ff_norm.weight", None, "missing.*blocks.1.ff_norm"),
    ("model.transformer.ff_out.weight", None, "missing.*transformer.ff_out"),
    ("model.transformer.ln_f.weight", torch.zeros(31), r"ln_f.*\(31,\).*\(32,\)"),
    ("model.transformer.wte.weight", torch.zeros(32, 64), r"wte.*\(32, 64\)"),
    ("model.transformer.wte.weight", torch.zeros(64, 32, dtype=torch.int8), "wte.*of I8.*quanti"),
    ("model.transformer.wte.weight", torch.full((64, 32), math.nan), "wte.*no number"),
    ("model.transformer.ln_f.weight", torch.full((32,), math.inf), "ln_f.*no number"),
], ids=str)
def test_a_tensor_that_is_not_llada_s_is_refused_by_name(copy, name, value, words):
    def changed(weights):
        if value is None:
            del weights[name]
        else:
            weights[name] = value

    rewrite(copy, changed)
    with pytest.raises(ValueError, match=words):
        load_llada(copy)


# ----------------------------------------------------------------------------------------------
# shards

def test_shards_in_any_order_are_the_same_model(copy, tiny):
    files = in_shards(copy)
    again = load_llada(copy)
    # Their order by name may be any, too.
    moved = dict(zip(files, ("z.safetensors", "a.safetensors", "m.safetensors")))
    for old, new in moved.items():
        (copy / old).rename(copy / new)
    write_index(copy, {name: moved[file] for name, file in weight_map(copy).items()})
    for model in (again, load_llada(copy)):
        assert all(model.state_dict()[name].equal(weight)
                   for name, weight in tiny.state_dict().items())


def truncate(folder):
    shard = next(folder.glob("model-00002*"))
    shard.write_bytes(shard.read_bytes()[:-100])


def cut_header(folder):
    shard = next(folder.glob("model-00002*"))
    shard.write_bytes(shard.read_bytes()[:20])


def remove(folder):
    next(folder.glob("model-00002*")).unlink()


def foreign(folder):        # of another model: other names
    save_file({"model.embed": torch.zeros(3)}, next(folder.glob("model-00002*")))


def swapped(folder):        # of this model, but not the one that the index means
    first, second, _ = sorted(folder.glob("model-0*"))
    shutil.copyfile(second, first)


def no_tensors(folder):
    next(folder.glob("model-00002*")).write_bytes(b"hello, these are no tensors at all")


def empty(folder):
    next(folder.glob("model-00002*")).write_bytes(b"")


def listed_elsewhere(folder):
    write_index(folder, {**weight_map(folder), "model.transformer.ln_f.weight":
                         "../tiny/model.safetensors"})


def not_listed(folder):
    write_index(folder, {name: file for name, file in weight_map(folder).items()
                         if "ln_f" not in name})


def listed_twice(folder):
    shutil.copyfile(TINY / "model.safetensors", folder / "model.safetensors")


def listed_in_vain(folder):
    write_index(folder, {**weight_map(folder), "model.more": sorted(
        folder.glob("model-0*"))[0].name})


def no_index(folder):
    (folder / "model.safetensors.index.json").unlink()


def index_of_nothing(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}')


@pytest.mark.parametrize("damage, words", [
    (truncate, "model-00002.*not all of it"), (cut_header, "model-00002.*not all of it"),
    (remove, "lists model-00002.*not there"), (foreign, "model-00002.*'model.embed'"),
    (swapped, "model-00001.*not there by"), (no_tensors, "model-00002.*no safetensors file"),
    (empty, "model-00002.*no safetensors file"), (listed_elsewhere, "names of files beside it"),
    (not_listed, "ln_f.*not there by"), (listed_twice, "both.*which"),
    (listed_in_vain, "has no 'model.more'"), (no_index, "neither"),
    (index_of_nothing, "no weight_map")])
def test_a_damaged_set_of_shards_is_refused_in_one_line_with_status_2(copy, capsys, damage, words):
    shutil.copytree(TOKENIZER, copy, dirs_exist_ok=True)
    in_shards(copy)
    damage(copy)
    with pytest.raises(ValueError, match=words) as error:
        load_llada(copy)
    assert "\n" not in str(error.value)
    change(copy, vocab_size=64)
    with pytest.raises(SystemExit) as ended:
        sample.main(["--llada", str(copy), "--prompt", "x", "--length", "8"])
    assert ended.value.code == 2 and "\n" not in capsys.readouterr().err.strip()


@pytest.mark.parametrize("name, data, words", [
    ("config.json", None, "config.json is not there"), ("config.json", b"{", "no JSON"),
    ("config.json", b"[1]", "no dict"), ("config.json", b"[" * 10**6, "no JSON"),
    ("config.json", b"\xff\xfe", "no JSON"), ("model.safetensors", None, "neither")])
def test_a_folder_that_is_not_whole_is_refused(copy, name, data, words):
    (copy / name).unlink()
    if data is not None:
        (copy / name).write_bytes(data)
    with pytest.raises(ValueError, match=words):
        load_llada(copy)


@pytest.mark.parametrize("name, words", [
    ("adapter_config.json", "LoRA"), ("pytorch_model-00001.bin", "pickles")])
def test_what_is_there_in_place_of_weights_is_named(copy, name, words):
    (copy / "model.safetensors").unlink()
    (copy / name).write_text("{}")
    with pytest.raises(ValueError, match=words):
        load_llada(copy)


def damaged(data, rng):
    """The bytes of a file, with some of them changed, lost, said twice, or a number replaced."""
    kind, i = rng.choice(["change", "cut", "twice", "lose", "number"]), rng.randrange(len(data))
    if kind == "change":
        return data[:i] + rng.randbytes(rng.randint(1, 8)) + data[i + 3:]
    if kind == "cut":
        return data[:i]
    if kind == "twice":
        return data[:i] + data[i:i + 100] + data[i:]
    if kind == "lose":
        return data[:i] + data[i + rng.randint(1, 100):]
    found = rng.choice(list(re.finditer(rb"[0-9]+", data[:3000])) or [re.match(b"", data)])
    other = rng.choice([b"0", b"-1", b"9" * 20, b"1e400", b"null", b"true", b"[]", b'"x"'])
    return data[:found.start()] + other + data[found.end():]


@pytest.mark.slow
def test_a_folder_damaged_at_random_is_refused_in_one_line_or_runs(tmp_path):
    write_random(tmp_path, n_embd=16, n_hidden=48, max_length=160, most=30_000)
    files, rng = sorted(tmp_path.iterdir()), random.Random(0)
    n_refused = 0
    for _ in range(3000):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damaged(whole, rng))
        try:
            task = Chat(tmp_path, read_config(tmp_path), 16)
            load_llada(tmp_path)(task.prompts(["How many?"]))
        except (ValueError, OSError) as error:
            assert "\n" not in str(error)
            n_refused += 1
        file.write_bytes(whole)
    assert n_refused > 2000


# ----------------------------------------------------------------------------------------------
# out again

def test_a_round_trip_has_the_same_bytes_and_config(tiny, tmp_path):
    export_llada(tiny, tmp_path / "out", source=TINY)
    before, after = [load_file(f / "model.safetensors") for f in (TINY, tmp_path / "out")]
    assert before.keys() == after.keys()
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    old, new = [json.loads((f / "config.json").read_text()) for f in (TINY, tmp_path / "out")]
    assert new.pop("torch_dtype") == "float32" and new == old and list(new) == list(old)


def test_keys_of_a_fork_s_own_go_out_with_its_model(copy, tmp_path):
    own = {"flash_attn_varlen": True, "dtype": "float16", "use_cache": True, "pad_token_id": 3}
    change(copy, **own)
    export_llada(load_llada(copy, dtype=torch.bfloat16), tmp_path / "out", source=copy)
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found.items() >= {**own, "dtype": "bfloat16", "torch_dtype": "bfloat16"}.items()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_small_model_of_ours_goes_out_and_comes_back_as_it_was(tmp_path, dtype):
    config = ModelConfig(50, mask_id=48, eos_id=49, max_length=24, n_layer=2, n_head=2, n_embd=16,
                         n_hidden=40, rope_theta=77.0, norm_eps=1e-4, n_padding=0)
    model = MaskedDiffusionLM(config).to(dtype)
    model.cos, model.sin = MaskedDiffusionLM(config).cos, MaskedDiffusionLM(config).sin
    export_llada(model, tmp_path / "out")
    again = load_llada(tmp_path / "out")
    assert again.config == config
    assert all(again.state_dict()[name].equal(weight)
               for name, weight in model.state_dict().items())
    canvas = torch.randint(50, (2, 24))
    assert again(canvas).equal(model(canvas))


def test_many_shards_have_an_index_and_are_no_larger_than_asked(tmp_path):
    write_random(tmp_path / "out", most=50_000)
    files = sorted(tmp_path.glob("out/*.safetensors"))
    n = len(files)
    assert n > 3 and files[0].name == f"model-00001-of-{n:05}.safetensors"
    own = {name: file.name for file in files for name in load_file(file)}
    assert weight_map(tmp_path / "out") == own
    # One tensor may be larger than a shard should be.
    assert all(len(load_file(file)) == 1 for file in files if file.stat().st_size > 52_000)
    assert load_llada(tmp_path / "out").config.n_layer == 2


def test_the_published_8b_has_291_tensors_of_16_gigabytes():
    config = replace(read_config(TINY), vocab_size=126464, n_layer=32, n_head=32, n_embd=4096,
                     n_hidden=12288)
    shapes = dict(weight_shapes(config))
    assert len(shapes) == 291
    assert 2 * sum(math.prod(shape) for shape in shapes.values()) == 16_031_162_368
    assert len(plan_shards(config, 2, llada.SHARD)) == 6


def test_names_are_the_published_ones_that_the_fixture_has(tiny):
    published = load_file(TINY / "model.safetensors")
    assert {llada.PREFIX + name for name, _ in weight_shapes(tiny.config)} == published.keys()


def test_an_export_never_goes_over_another_model(tiny, copy):
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    with pytest.raises(ValueError, match="is there: name another"):
        export_llada(tiny, copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_an_export_that_was_killed_is_no_model(tiny, tmp_path, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(llada, "write_whole", kill)
    with pytest.raises(KeyboardInterrupt):
        export_llada(tiny, tmp_path / "out")
    with pytest.raises(ValueError, match="config.json is not there"):
        load_llada(tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="model.safetensors is there"):
        export_llada(tiny, tmp_path / "out")
    export_llada(tiny, tmp_path / "out", overwrite=True)
    assert load_llada(tmp_path / "out").config == tiny.config


# ----------------------------------------------------------------------------------------------
# tokenizer and chat

@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(TOKENIZER)


def test_ids_are_the_reference_s_in_every_case(vocabulary):
    assert len(IDS["text"]) == 309
    for case in IDS["text"]:
        assert vocabulary.encode_ordinary(case["text"]) == case["ids"], case["text"]
    for case in IDS["with_special"]:
        assert vocabulary.encode(case["text"]) == case["ids"]
    for case in IDS["chat"]:
        assert vocabulary.chat(case["question"]) == case["prompt"]
        assert vocabulary.chat_ids(case["question"]) == case["ids"]


def test_a_special_token_in_a_users_text_is_text(vocabulary):
    special = {vocabulary.encode(name)[0] for name in ("<|mdm_mask|>", "<|eot_id|>")}
    text = "<|mdm_mask|> and <|eot_id|>, are they 2?"
    ids = vocabulary.encode_ordinary(text)
    assert not special & set(ids) and vocabulary.decode(ids) == text
    prompt = vocabulary.chat_ids(text)
    assert prompt.count(vocabulary.encode("<|eot_id|>")[0]) == 1     # the template's own
    assert vocabulary.encode_ordinary(text) == prompt[7:7 + len(ids)]


def test_text_is_normalized_and_special_tokens_are_not_decoded(vocabulary):
    assert vocabulary.encode_ordinary("e\u0301") == vocabulary.encode_ordinary("\u00e9")
    ids = vocabulary.encode("<|startoftext|>How many?<|eot_id|>")
    assert vocabulary.decode(ids) == "How many?"
    assert vocabulary.decode([*ids, 9999]) == "How many?"       # a row that is no token
    assert vocabulary.decode_single_token_bytes(ids[0]) == b"<|startoftext|>"


@pytest.mark.parametrize("changes", [
    dict(padding={"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
                  "pad_id": 5000, "pad_type_id": 0, "pad_token": "<|endoftext|>"}),
    dict(truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
                     "stride": 0}),
    dict(model={"dropout": 0.5})], ids=str)
def test_padding_truncation_and_dropout_in_the_file_are_not_obeyed(tmp_path, vocabulary, changes):
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "t"))
    found = json.loads((folder / "tokenizer.json").read_text())
    changes = {**changes, "model": {**found["model"], **changes.get("model", {})}}
    (folder / "tokenizer.json").write_text(json.dumps(found | changes))
    question = IDS["chat"][0]["question"]
    assert Vocabulary(folder).chat_ids(question) == vocabulary.chat_ids(question)


def test_a_text_that_has_no_tokens_is_refused_in_one_line(vocabulary, small, capsys):
    with pytest.raises(ValueError, match="no tokens for"):
        vocabulary.chat_ids("a\udcffb")
    with pytest.raises(SystemExit) as ended:
        sample.main(["--llada", str(small), "--prompt", "a\udcffb", "--length", "8"])
    assert ended.value.code == 2 and "\n" not in capsys.readouterr().err.strip()


def test_of_several_templates_the_default_is_taken(tmp_path, vocabulary):
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "t"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "tools", "template": "x"},
                               {"name": "default", "template": config["chat_template"]}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert Vocabulary(folder).chat_ids("How many?") == vocabulary.chat_ids("How many?")


@pytest.mark.parametrize("template, words", [
    ("(" * 500, "something around"), ("{% if 1 %}" * 300 + "{% endif %}" * 300, "template"),
    ("{% for x in", "chat template"), ("{{ messages.x() }}", "failed"), (7, "chat template"),
    ("{{ ''.__class__.__mro__ }}", "failed|something around"),
    ("no question", "something around"),
    ("{% for i in range(10**9) %}x{% endfor %}", "failed")])
def test_a_template_that_does_not_work_is_refused_in_one_line(tmp_path, template, words):
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "t"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(ValueError, match=words):
        Vocabulary(folder).chat_ids("How many?")


def test_without_a_template_the_question_is_the_prompt(tmp_path, vocabulary):
    folder = Path(shutil.copytree(TOKENIZER, tmp_path / "t"))
    (folder / "tokenizer_config.json").unlink()
    assert Vocabulary(folder).chat_ids("How many?") == vocabulary.encode_ordinary("How many?")


@pytest.mark.parametrize("data", [None, b"{}", b"\x00", b'{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused(tmp_path, data):
    if data is not None:
        (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ValueError, match="tokenizer"):
        Vocabulary(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(copy):
    shutil.copytree(TOKENIZER, copy, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="1208 tokens, the network 64"):
        Chat(copy, read_config(copy), 8)


# ----------------------------------------------------------------------------------------------
# the decoders, beside a plain loop

def plain_loop(model, prompt, length, block_length, order, threshold=None):
    """One canvas, filled as LLaDA's generate does, at temperature 0: block after block; each
    step commits the surest mask of the block (or the leftmost), or all above a threshold."""
    canvas = torch.cat([prompt, torch.full((length,), MASK)])
    n = len(prompt)
    for start in range(n, n + length, block_length):
        block = slice(start, min(start + block_length, n + length))
        while (canvas[block] == MASK).any():
            p = model(canvas[None])[0].softmax(-1)
            best, token = p.max(-1)
            masks = (canvas == MASK).nonzero()[:, 0]
            masks = [int(i) for i in masks if block.start <= i < block.stop]
            first = masks[0] if order == "left_to_right" else max(masks, key=lambda i: best[i])
            chosen = {first} | {i for i in masks if threshold and best[i] >= threshold}
            for i in chosen:
                canvas[i] = token[i]
    return canvas[n:]


@pytest.mark.parametrize("order, block_length, threshold", [
    ("left_to_right", 24, None), ("confidence", 24, None), ("confidence", 8, None),
    ("top_probability", 8, None), ("top_probability", 24, 0.3), ("top_probability", 8, 0.2)])
def test_decoders_on_the_fixture_write_what_a_plain_loop_writes(tiny, order, block_length,
                                                                threshold):
    prompts = torch.randint(60, (3, 9), generator=torch.Generator().manual_seed(1))
    select = ("k", 1.0) if threshold is None else ("threshold", threshold)
    found = generate(tiny, prompts, 24, Decoder(order, *select, block_length))
    if threshold:
        assert found.nfe.min() < 24      # some steps commit several
    for prompt, tokens in zip(prompts, found.tokens):
        with torch.no_grad():
            expected = plain_loop(tiny, prompt, 24, block_length, order, threshold)
        ends = (expected == tiny.config.eos_id).nonzero()
        end = int(ends[0]) + 1 if len(ends) else 24     # theirs goes on after the first
        assert tokens[:end].equal(expected[:end])


# ----------------------------------------------------------------------------------------------
# how an answer is read, and when it is right

@pytest.mark.parametrize("text, answer", [
    ("The final answer is $42$. I hope it is correct.", "42"),
    (r"So \boxed{18} and then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"It is \boxed 7$ or so", "7"), (r"\boxed{3 and {4}", "3 and {4}"), (r"\boxed{}", ""),
    (r"The answer is 5. Then \boxed{6}", "6"),      # a box before a phrase
    ("The answer is 12.\n", "12."), ("the answer is: 1 the answer is 2", "2"),
    ("My final answer is 9", "9"), ("A final answer is 3, the answer is 4", "4"),
    ("First 3, then 1,234", "1234"), ("-5 or 2 - 7", "7"), ("-.5", "-.5"),
    ("16 - 3 - 4 = 9\n9 * 2 = 18\n#### 18", "18"), ("nothing", ""), ("", ""),
    ("#### 18\n\nIt costs 20 dollars", "20")])
def test_the_answer_is_the_first_that_is_found_of_five(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize("answer, gold, right", [
    ("18", "18", True), ("18.00", "18", True), ("$18", "18", True), (r"\$1,234.5", "1234.5", True),
    ("18 apples.", "18", True), ("x = 18", "18", True), ("-18", "18", False),
    ("25%", "0.25", True), (r"25\%", "25", True), ("0.25", "25", True), ("2500", "25", True),
    ("250", "25", False), ("10001", "10000", True), ("10002", "10000", False), ("0", "0", True),
    ("0.001", "0", False), (r"\frac{1}{2}", "0.5", True), (r"\dfrac{36}{2}", "18", True),
    ("36/2", "18", True), ("1/0", "1", False), ("", "0", False), ("eighteen", "18", False),
    ("18 or 19", "18", False), ("18\n#### 18", "18", False), ("3 * 6", "18", False),
    ("9" * 400, "9", False), ("1.2.3", "1.2", False), ("18 19", "1819", False),
    ("3 1/2", "3.5", False), ("36 / 2", "18", True), ("$-5", "-5", True)])
def test_equal_is_one_number_to_one_part_in_ten_thousand_or_its_percentage(answer, gold, right):
    assert same_number(answer, gold) is right


def test_the_older_protocol_finds_the_questions_own_number_in_an_empty_answer(small):
    problem = {"question": "Tom has 3 cats and 12 legs. What?", "answer": "12", "solution": ""}
    config = read_config(small)
    now, former = Chat(small, config, 16), Chat(small, config, 16, with_prompt=True)
    for task, right in ((now, False), (former, True)):
        assert eval_gsm8k.is_right(task, "", problem) is right
        line = eval_gsm8k.text_line(task, problem, 0, "", right, 1)
        assert line["extracted"] == ("12" if right else None)
    assert former.describe() != now.describe()      # texts of one are not taken for the other's


# ----------------------------------------------------------------------------------------------
# sample.py and eval_gsm8k.py

def test_prompts_are_not_padded_and_only_equal_lengths_share_a_batch(small):
    task = Chat(small, read_config(small), 16)
    problems = [{"question": q} for q in ("What is 7 and 8?", "What is 9 and 8?", "Why?")]
    same = task.prompts([p["question"] for p in problems[:2]])
    assert same.shape == (2, task.length_of("What is 7 and 8?"))
    assert task.eos_id not in same[:, 0]
    with pytest.raises(ValueError, match="different lengths"):
        task.prompts([p["question"] for p in problems])
    with pytest.raises(ValueError, match="tokens where 144 fit"):
        task.prompts(["word " * 200])
    assert eval_gsm8k.batches_of(task, problems, 5) == [problems[:2], problems[2:]]
    assert eval_gsm8k.batches_of(task, problems[:2], 1) == [problems[:1], problems[1:2]]
    assert eval_gsm8k.batches_of(Worksheet(), problems, 2) == [problems[:2], problems[2:]]


def test_sample_takes_the_protocol_as_its_defaults(small, capsys):
    sample.main(["--llada", str(small), "--prompt", "What is 7 and 8?", "--length", "8"])
    out = capsys.readouterr().out
    assert "8 forward evaluations" in out and "\nquestion  What is 7 and 8?\n" in out
    assert out.splitlines()[0].endswith("parameters, torch.float32, on cpu")
    sample.main(["--llada", str(small), "--prompt", "What is 7 and 8?", "--length", "8",
                 "--watch", "--order", "left_to_right"])
    assert "step   7" in capsys.readouterr().out


def evaluate(small, questions, *flags, length=12):
    eval_gsm8k.main(["--llada", str(small), "--data", str(questions), "--length", str(length),
                     "--device", "cpu", *flags])


SAMPLED = "--samples", "3", "--temperature", "0.8", "--k", "1,3"


def test_shards_make_what_the_whole_makes(small, questions, tmp_path, capsys):
    whole, merged = tmp_path / "whole.jsonl", tmp_path / "merged.jsonl"
    evaluate(small, questions, *SAMPLED, "--texts", str(whole))
    table = capsys.readouterr().out.splitlines()
    for i in (1, 2, 3):
        part = tmp_path / f"part-{i}.jsonl"
        evaluate(small, questions, *SAMPLED, "--texts", str(part), "--shard", f"{i}/3")
        with open(merged, "ab") as file:
            file.write(part.read_bytes())
    assert merged.read_bytes() == whole.read_bytes()
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [(line["index"], line["sample"]) for line in lines] == [
        (i, n) for i in range(5) for n in range(3)]
    capsys.readouterr()
    evaluate(small, questions, *SAMPLED, "--texts", str(merged))
    again = capsys.readouterr().out.splitlines()
    assert again[:-2] == table[:-2]     # the line after has how many were run here


def test_shards_are_cut_where_batches_end(small, tmp_path, monkeypatch):
    # In a batch of another size logits are rounded in another way, and a draw may flip.
    task = Chat(small, read_config(small), 12)
    task.use_rows({"test": [{"question": f"What is {i} and {i}?", "answer": "1"}
                            for i in range(10, 70)]})
    lengths = [task.length_of(row["question"]) for row in task.rows["test"]]
    monkeypatch.setattr(eval_gsm8k, "batch_size", lambda *_: 7)
    args = argparse.Namespace(limit=100, samples=1, shard=None)
    problems, *all_of_them = eval_gsm8k.pick_problems(args, task)
    assert all_of_them == [0, 60] and len(set(lengths)) == 1
    batches = eval_gsm8k.batches_of(task, problems, 7)
    found = []
    for i in range(1, 6):
        args.shard = i, 5
        whole, first, end = eval_gsm8k.pick_problems(args, task)
        assert whole == problems
        found += eval_gsm8k.batches_of(task, whole[first:end], 7)
    assert found == batches


@pytest.mark.parametrize("cut, n_lost", [(1, 1), (150, 1), (2500, 3)])
def test_a_restart_goes_on_where_a_kill_in_a_line_left_it(small, questions, tmp_path, cut, n_lost,
                                                          monkeypatch):
    path = tmp_path / "texts.jsonl"
    evaluate(small, questions, *SAMPLED, "--texts", str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    added = []      # the batches that are sampled anew
    add = eval_gsm8k.Texts.add
    monkeypatch.setattr(eval_gsm8k.Texts, "add",
                        lambda self, done: (added.append(1), add(self, done)))
    evaluate(small, questions, *SAMPLED, "--texts", str(path))
    assert path.read_bytes() == whole and len(added) == n_lost
    evaluate(small, questions, *SAMPLED, "--texts", str(path))
    assert path.read_bytes() == whole and len(added) == n_lost


def test_texts_of_another_model_or_protocol_are_not_gone_on_with(small, questions, tmp_path,
                                                                 capsys):
    path = tmp_path / "texts.jsonl"
    evaluate(small, questions, "--texts", str(path), "--limit", "2")
    other = tmp_path / "other"
    write_random(other, n_embd=16, n_hidden=48, max_length=160, seed=1)
    chatty = Path(shutil.copytree(small, tmp_path / "chatty"))
    (chatty / "chat_template.jinja").write_text("Say: {{ messages[0]['content'] }}")
    for folder, *flags in ((other,), (chatty,), (small, "--with-prompt"),
                           (small, "--dtype", "bfloat16")):
        with pytest.raises(SystemExit):
            evaluate(folder, questions, "--texts", str(path), "--limit", "2", *flags)
        assert "not of this evaluation" in capsys.readouterr().err
    evaluate(small, questions, "--texts", str(path), "--limit", "2", "--dtype", "float32")


def test_the_trap_is_four_decoders_and_their_leads(small, questions, tmp_path, capsys):
    evaluate(small, questions, "--trap", *SAMPLED, "--limit", "2",
             "--texts", str(tmp_path / "texts.jsonl"), "--csv", str(tmp_path / "rows.csv"))
    out = capsys.readouterr().out
    assert out.count("lead of left to right, over") == 1 and out.count("never ahead") == 3
    assert len(list(tmp_path.glob("texts-*.jsonl"))) == 4
    rows = read_csv(tmp_path / "rows.csv", eval_gsm8k.RESULT_COLUMNS)
    assert [(row["order"], row["selection"], row["block_length"], row["k"]) for row in rows] == [
        (order, selection, block, k) for order, selection, block in (
            ("left_to_right", "k=1", ""), ("confidence", "k=1", "12"),
            ("top_probability", "k=1", "12"), ("top_probability", "threshold=0.9", "12"))
        for k in ("1", "3")]


def test_a_full_gpu_is_one_line(small, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")

    monkeypatch.setattr(llada, "load_llada", full)
    with pytest.raises(SystemExit) as ended:
        sample.main(["--llada", str(small), "--prompt", "x", "--length", "8"])
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.endswith("out of memory. Tried to allocate 2 GiB.\n")


def test_left_to_right_has_no_blocks_and_what_is_asked_for_is_kept():
    for flags, block in (([], 32), (["--length", "8"], 8), (["--order", "left_to_right"], None),
                         (["--block-length", "64"], 64)):
        parser = sample.new_parser("")
        sample.add_decoder_flags(parser)
        args = sample.parse_decoder_flags(parser, ["--llada", "x", *flags])
        assert args.block_length == block


@pytest.mark.parametrize("flags, words", [
    (["--shard", "3/2"], "3/2"), (["--shard", "0/2"], "0/2"), (["--shard", "x"], "x is none"),
    (["--shard", "1/9"], "5 problems are just 4 batches"),
    (["--checkpoint", "x.pt"], "not allowed with"),
    (["--length", "400"], "nothing is left for a prompt"), (["--block-length", "13"], "at most 12"),
    (["--samples", "2"], "all equal"),
    (["--samples", "2", "--trap", "--order", "random"], "all equal"),
    (["--dtype", "int8"], "invalid choice")])
def test_flags_that_mean_nothing_end_in_one_line(small, questions, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        evaluate(small, questions, *flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_without_problems_or_a_folder_the_line_says_what_to_do(small, tmp_path, capsys):
    for flags, words in ((["--llada", str(small), "--length", "9"], "--data"),
                         (["--llada", str(tmp_path), "--data", "x"], "config.json is not there"),
                         (["--shard", "1/2"], "go with --llada")):
        with pytest.raises(SystemExit) as ended:
            eval_gsm8k.main(flags)
        assert ended.value.code == 2 and words in capsys.readouterr().err


def test_without_the_packages_the_line_names_the_file_of_requirements(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "llada")
    with pytest.raises(SystemExit) as ended:
        sample.main(["--llada", str(TINY), "--prompt", "x"])
    assert ended.value.code == 2
    assert "pip install -r requirements-llada.txt" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------
# training

class Sums(Chat):
    """A task on the tiny fixture, without a tokenizer: paid for a token."""
    name, prompt_length, completion_length = "sums", 6, 8
    settings = {}

    def __init__(self, config):
        self.config = config

    def problems(self, split, start, n):
        return [{"question": str(start + i), "answer": "7"} for i in range(n)]

    def prompts(self, questions, length=None):
        return torch.tensor([[int(q) % 50, 1, 2, 3, 4, 5] for q in questions])

    def text(self, completion):
        return " ".join(str(int(i)) for i in completion)

    def reward(self, text, answer):
        return float(sum(int(i) < 30 for i in text.split()))


def test_justgrpo_trains_the_tiny_fixture_and_the_result_goes_out(run, tmp_path):
    model = load_llada(TINY)
    arm = Arm(Decoder("left_to_right", temperature=1.0))
    found = list(grpo(model, Sums(model.config), arm, Recipe(12, 4, 8, 2e-3), run))
    first, last = found[0].reward, sum(step.reward for step in found[-3:]) / 3
    assert last > first + 0.5 and found[0].signal > 0.9
    export_llada(model, tmp_path / "out", source=TINY)
    trained = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(TINY / "model.safetensors")
    assert all(not trained[name].equal(before[name]) for name in before)
    assert load_llada(tmp_path / "out")(torch.zeros(1, 5).long()).equal(
        model(torch.zeros(1, 5).long()))


@pytest.fixture(scope="module")
def training_rows(tmp_path_factory):
    """A GSM8K file with enough rows to hold some out."""
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {i} and {i}?",
                                        "answer": f"#### {2 * i}"}) + "\n" for i in range(120)))
    return path


def test_train_py_runs_justgrpo_on_a_small_folder(small, questions, training_rows, tmp_path,
                                                  capsys):
    flags = ["--stage", "grpo", "--llada", str(small), "--data", str(training_rows), "--test",
             str(questions), "--out", str(tmp_path / "out"), "--length", "8", "--device", "cpu",
             "--problems", "2", "--trap-problems", "2", "--samples", "2", "--grpo-steps", "1",
             "--rollouts", "2"]
    train.main(flags)
    out = capsys.readouterr().out
    assert "training takes about" in out and "sample.py --llada" in out
    assert load_llada(tmp_path / "out" / "justgrpo").config == read_config(small)
    assert Vocabulary(tmp_path / "out" / "justgrpo").n_vocab == 1208
    train.main([*flags, "--resume"])
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("flags, words", [
    (["--prompts", "4"], "a step has 1"), (["--stage", "all"], "--stage grpo"),
    (["--test", ""], "--data and --test")])
def test_flags_of_train_py_that_llada_has_not_are_refused(small, questions, training_rows,
                                                          tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        train.main(["--stage", "grpo", "--llada", str(small), "--data", str(training_rows),
                    "--test", str(questions), "--out", str(tmp_path / "out"), *flags])
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("where", ["", "justgrpo", "justgrpo/out"])
def test_a_run_never_moves_or_overwrites_the_model_that_it_began_from(
        small, questions, training_rows, tmp_path, capsys, where):
    source = Path(shutil.copytree(small, tmp_path / "out" / "justgrpo"))
    before = {path: path.read_bytes() for path in source.iterdir()}
    flags = ["--stage", "grpo", "--llada", str(source), "--data", str(training_rows), "--test",
             str(questions), "--length", "8"]
    with pytest.raises(SystemExit) as ended:
        train.main([*flags, "--out", str(tmp_path / "out" / where)])
    assert ended.value.code == 2 and "another --out" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_rows_that_do_not_fit_are_found_before_any_work(small, questions, training_rows, tmp_path,
                                                        capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--stage", "grpo", "--llada", str(small), "--data", str(training_rows),
                    "--test", str(questions), "--length", "150", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and "rows fits the task" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags, words", [
    (["--width", "0"], "not above 0"), (["--layers", "-1"], "not above 0"),
    (["--width", "33"], "d_model is 33"), (["--rows", "5"], "embedding_size is 5"),
    (["--max-length", "100000"], "max_sequence_length is 100000"),
    (["--heads", "32"], "d_model is 32")])
def test_a_random_folder_of_impossible_sizes_is_not_written(tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        llada_folder.main([str(tmp_path / "new"), *flags])
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_can_t_be_written_is_named(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(llada, "save_file", full)
    with pytest.raises(OSError, match="model.safetensors can't be written.*No space"):
        export_llada(tiny, tmp_path / "out")


def test_a_model_too_large_to_train_is_pointed_to_the_hand_over(small, questions, training_rows,
                                                               tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(llada, "free_memory", lambda device: 10**6)
    with pytest.raises(SystemExit) as ended:
        train.main(["--stage", "grpo", "--llada", str(small), "--data", str(training_rows),
                    "--test", str(questions), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "docs/llada.md" in error and "\n" not in error.strip()
    assert not (tmp_path / "out").exists()


def test_problems_of_both_files_are_judged_right_by_their_own_solutions(questions, small):
    task = Chat(small, read_config(small), 64)
    for problem in read_jsonl(questions):
        assert eval_gsm8k.is_right(task, problem["solution"], problem)
