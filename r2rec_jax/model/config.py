"""The `model` and `lora` sections of a config. The architecture of a model folder is in architecture.py."""

import dataclasses
import math

from ml_collections import ConfigDict

from r2rec_jax.runtime.fields import Section, declaration, field, required, section
from r2rec_jax.runtime.ranges import LESS_THAN_ONE, POSITIVE, Each, one_of, whole

MODEL_8B = "models/DeepSeek-R1-Distill-Llama-8B"
DTYPES = ("bfloat16", "float16", "float32")
REMAT = ("none", "dots", "block", "offload")
ATTENTIONS = ("auto", "xla", "cudnn")
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@declaration
class ModelConfig(Section):
    """The base model, which stays frozen but for pretraining."""

    WHERE = "model"
    folder: str = field(MODEL_8B, "Folder of the base model: Hugging Face's form or that of launch.convert.")
    dtype: str = field("bfloat16", "Dtype of weights and activations.", one_of(*DTYPES))
    remat: str = field(
        "block",
        "What a backward pass computes again; offload: block inputs wait in host memory.",
        one_of(*REMAT),
    )
    attention: str = field(
        "auto", "Attention kernel; auto: cuDNN where it can run, else XLA.", one_of(*ATTENTIONS)
    )
    quantize: str = field(
        "",
        "int8: linear layers of the frozen base in half the memory of bfloat16; '': none.",
        one_of("", "int8"),
    )
    item_table: str = field(
        "", "Item vectors as .npy, which a projector turns into input tokens, as in LLaRA; '': none."
    )


@declaration
class RopeConfig(Section):
    """Rotary positions, in the form of Hugging Face's config.json."""

    WHERE = "model.architecture.rope_parameters"
    rope_type: str = field("default", "Scaling of rotary positions.", one_of("default", "llama3"))
    rope_theta: float = required("Base of the rotary frequencies.", POSITIVE)

    @classmethod
    def variant(cls, config: ConfigDict) -> type["RopeConfig"]:
        return Llama3RopeConfig if config.get("rope_type") == "llama3" else cls


@declaration
class Llama3RopeConfig(RopeConfig):
    """Rotary positions with the scaling of Llama 3."""

    rope_type: str = field("llama3", "Scaling of rotary positions.", one_of("default", "llama3"))
    factor: float = required("Factor by which low frequencies are divided.", POSITIVE)
    low_freq_factor: float = required("Wavelengths above context / this are scaled.", POSITIVE)
    high_freq_factor: float = required("Wavelengths below context / this are kept.", POSITIVE)
    original_max_position_embeddings: int = required("Context that the factors refer to, tokens.", whole(1))


@declaration
class ArchitectureConfig(Section):
    """A Llama that is pretrained from scratch, in the form of Hugging Face's config.json."""

    WHERE = "model.architecture"
    vocab_size: int = required("Tokens of the vocabulary.", whole(1))
    hidden_size: int = required("Width of the residual stream.", whole(1))
    intermediate_size: int = required("Width of the feed-forward layers.", whole(1))
    num_hidden_layers: int = required("Layers.", whole(1, 1024))
    num_attention_heads: int = required("Query heads.", whole(1))
    num_key_value_heads: int = required("Key-value heads.", whole(1))
    head_dim: int = required("Width of a head.", whole(1))
    rms_norm_eps: float = field(1e-5, "Epsilon of RMSNorm.", POSITIVE)
    rope_parameters: RopeConfig = section(RopeConfig)
    max_position_embeddings: int = field(2048, "Longest sequence, tokens.", whole(1))
    tie_word_embeddings: bool = field(False, "Whether the output head is the embedding.")


@declaration
class PretrainModelConfig(ModelConfig):
    """A model without a folder: pretraining makes it."""

    folder: str = field("", "Unused: pretraining starts from random weights.")
    architecture: ArchitectureConfig = section(ArchitectureConfig)


@dataclasses.dataclass(frozen=True)
class LoRAConfig(Section):
    """A low-rank adapter y = x W + s (dropout(x) A) B of each layer in `targets`, after Hu et al. 2021."""

    WHERE = "lora"
    rank: int = field(16, "Rank of every adapter.", whole(1))
    alpha: float = field(
        32.0, "Scale of the adapters: their product is multiplied by alpha / rank.", POSITIVE
    )
    targets: tuple[str, ...] = field(
        LINEAR_LAYERS,
        "Linear layers with an adapter, by their Hugging Face names.",
        Each(one_of(*LINEAR_LAYERS), fewest=1, distinct=True),
    )
    dropout: float = field(
        0.0, "Probability that an entry of an adapter's input is left out, in SFT only.", LESS_THAN_ONE
    )
    use_rslora: bool = field(False, "Whether the scale is alpha / sqrt(rank) (Kalajdzievski 2023).")
    folder: str = field("", "PEFT adapter that training starts from; '': a fresh adapter.")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)
