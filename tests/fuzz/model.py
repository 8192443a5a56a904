"""Models from elsewhere: config.json, safetensors, adapters, tokenizers, item vectors, checkpoints."""

import io
import json
import shutil
from pathlib import Path
from random import Random

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from r2rec_jax.model.architecture import LlamaConfig, load_config, to_hf
from r2rec_jax.model.config import LoRAConfig
from r2rec_jax.model.huggingface import abstract_params, hf_tensors, read_params
from r2rec_jax.model.item_tokens import read_items
from r2rec_jax.model.llama import Llama
from r2rec_jax.model.peft import load_adapter
from r2rec_jax.model.peft import load_config as load_peft
from r2rec_jax.model.shards import INDEX, read_headers, write_tensors
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.checkpoint import Checkpointer
from tests.fuzz.case import Target
from tests.fuzz.data import Files
from tests.fuzz.mutate import mutate, mutate_json

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = LlamaConfig(24, 8, 12, 2, 2, 1, 4, 1e-5, 1000.0, None, 64, False)
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED |= {"original_max_position_embeddings": 16}


class HFConfig(Target):
    """config.json of a model folder."""

    def make(self, rng: Random) -> bytes:
        seed = to_hf(TINY, torch_dtype="bfloat16") | {"rope_scaling": rng.choice((None, SCALED))}
        return mutate_json(rng, seed) if rng.randrange(4) else mutate(rng, json.dumps(seed).encode())

    def read(self, data: bytes) -> None:
        (self.folder / "config.json").write_bytes(data)
        config = load_config(self.folder)
        assert hash(config) == hash(config)
        for name, value in to_hf(config).items():
            if type(value) is int:
                assert 1 <= value <= 1 << 24, name
        assert config.num_attention_heads % config.num_key_value_heads == 0 == config.head_dim % 2
        assert 0 < config.rope_theta < float("inf") and 0 < config.rms_norm_eps < float("inf")


class HFFolder(Files):
    """A model folder in two files and their index."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        (folder / "config.json").write_text(json.dumps(to_hf(TINY)))
        leaves = ((path, np.ones(leaf.shape, np.float32)) for path, leaf in abstract_params(TINY).items())
        write_tensors(folder, hf_tensors(leaves, np.float32), shard_bytes=3000)
        self.keep()

    def mutated(self, rng: Random, name: str, content: bytes) -> bytes:
        if name.endswith(".json"):
            return mutate_json(rng, json.loads(content))
        return mutated_safetensors(rng, content)

    def read_folder(self) -> None:
        config, leaves = read_params(self.folder, np.float32)
        shapes = {path: leaf.shape for path, leaf in abstract_params(config).items()}
        assert {path: leaf.shape for path, leaf in leaves} == shapes


class Safetensors(Files):
    """Headers alone."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        tensors = {"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float16)}
        safetensors.numpy.save_file(tensors, folder / "model-1.safetensors")
        safetensors.numpy.save_file({"c": np.ones(2, np.int8)}, folder / "model-2.safetensors")
        homes = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 60}, "weight_map": homes}))
        self.keep()

    mutated = HFFolder.mutated

    def read_folder(self) -> None:
        for stored in read_headers(self.folder, "fetch it again").tensors.values():
            assert stored.file.parent == self.folder and all(size >= 0 for size in stored.shape)


def mutated_safetensors(rng: Random, content: bytes) -> bytes:
    """Another header of the right length before the same tensors, or blind edits."""
    length = int.from_bytes(content[:8], "little")
    if rng.randrange(3) == 0:
        return mutate(rng, content)
    header = mutate_json(rng, json.loads(content[8 : 8 + length]))
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


class PEFTConfig(Target):
    def make(self, rng: Random) -> bytes:
        seed = (GOLDEN / rng.choice(("peft_rslora", "peft_all_linear")) / "adapter_config.json").read_bytes()
        return mutate_json(rng, json.loads(seed)) if rng.randrange(4) else mutate(rng, seed)

    def read(self, data: bytes) -> None:
        (self.folder / "adapter_config.json").write_bytes(data)
        check_lora(load_peft(self.folder))


def check_lora(lora: LoRAConfig) -> None:
    assert type(lora.rank) is int and 1 <= lora.rank <= 1 << 24 and lora.targets
    assert np.isfinite(lora.scale) and 0 <= lora.dropout < 1


class PEFTFolder(Files):
    def __init__(self, folder: Path):
        super().__init__(folder)
        arrays = np.load(GOLDEN / "llama_scaled.npz")
        (folder / "config.json").write_text(str(arrays["config"]))
        self._base = load_config(folder)
        (folder / "config.json").unlink()
        shutil.copytree(GOLDEN / "peft_rslora", folder, dirs_exist_ok=True)
        self.keep()

    mutated = HFFolder.mutated

    def read_folder(self) -> None:
        lora, tree = load_adapter(self.folder, self._base)
        check_lora(lora)
        assert set(tree) == {"layers"} and Llama(self._base, lora)


SENTENCE = "Kai gave it a 4, so it fits; Emma (1996) é"
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "add_bos_token": True,
    "model_max_length": 99,
}
# Parts of tokenizer.json with state in them.
STATE = {
    "truncation": [{"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}],
    "padding": [
        {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0}
        | {"pad_type_id": 0, "pad_token": "x"}
    ],
    "normalizer": [{"type": "Lowercase"}, {"type": "NFC"}, {"type": "Prepend", "prepend": "_"}, None],
    "post_processor": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}, None],
    "pre_tokenizer": [{"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}, None],
}


class Tokenizer(Files):
    def __init__(self, folder: Path):
        super().__init__(folder)
        train_tokenizer(["Kai gave it a 4, so it fits."], 290).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
        (folder / "config.json").write_text(json.dumps({"vocab_size": 290, "eos_token_id": 1}))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
        self.keep()

    def mutated(self, rng: Random, name: str, content: bytes) -> bytes:
        value = json.loads(content)
        if name == "tokenizer.json" and rng.randrange(2):
            part = rng.choice(list(STATE))
            value[part] = rng.choice(STATE[part])
            return json.dumps(value).encode()
        return mutate_json(rng, value) if rng.randrange(2) else mutate(rng, content)

    def read_folder(self) -> None:
        chat = Chat(self.folder)
        assert all(type(getattr(chat, name)) is int for name in MARKERS)
        assert chat.decode(chat.encode(SENTENCE)) == SENTENCE
        assert len(chat.prompt(SENTENCE)) < len(chat.prompt(SENTENCE * 50)) - 1000


class Items(Target):
    """A table of item vectors, .npy."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        out = io.BytesIO()
        np.save(out, np.arange(12, dtype=np.float32).reshape(4, 3))
        self._seed = out.getvalue()

    def make(self, rng: Random) -> bytes:
        return mutate(rng, self._seed)

    def read(self, data: bytes) -> None:
        (self.folder / "items.npy").write_bytes(data)
        table = read_items(self.folder / "items.npy")
        assert table.ndim == 2 and table.dtype == np.float32 and np.isfinite(table).all()


class Checkpoint(Target):
    """A training run's checkpoint with one file changed: restored as it was saved, or refused.

    The first byte says which file.
    """

    limit_s = 30.0

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._state = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4, jnp.int32)}
        self._data = {"batches": {"next": 3}, "watch": {"skipped": 0}}
        self._good = folder / "good"
        with Checkpointer(self._good) as checkpoints:
            checkpoints.save(1, self._state, self._data)
            checkpoints.wait()
        self._files = sorted(path.relative_to(self._good) for path in self._good.rglob("*") if path.is_file())

    def make(self, rng: Random) -> bytes:
        k = rng.randrange(len(self._files))
        return bytes([k]) + mutate(rng, (self._good / self._files[k]).read_bytes())

    def read(self, data: bytes) -> None:
        again = self.folder / "again"
        shutil.copytree(self._good, again)
        try:
            (again / self._files[(data[0] if data else 0) % len(self._files)]).write_bytes(data[1:])
            with Checkpointer(again) as checkpoints:
                state, kept = checkpoints.restore(1, self._state)
            assert kept == self._data
            for name, array in self._state.items():
                assert (np.asarray(state[name]) == np.asarray(array)).all()
        finally:
            shutil.rmtree(again)
