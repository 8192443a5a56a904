"""A tokenizer for any text, and what annotation reads of a config."""

import pytest
from ml_collections import ConfigDict

from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Kai gave it a 4, so it fits."], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture
def config() -> ConfigDict:
    """What annotation reads of a whole config."""
    prompt = {"wording": "compact", "answer": "titles", "places": 3, "reasoning": True}
    prompt |= {"likes": 5, "history": 0, "chains": 3, "buckets": (4096,)}
    prompt |= {"item_tokens": False, "chain_length": 1, "chain_selection": "uniform"}
    server = {"base_url": "", "model": "m", "reported_model": "", "key_variable": ""}
    server |= {"thought_tokens": 0, "concurrency": 3, "requests_per_minute": 0}
    server |= {"timeout_s": 2.0, "retries": 2, "prompt_price": 1.0}
    server |= {"completion_price": 2.0, "cost_limit": 0.0}
    annotate = {"tasks": ("rating", "ranking"), "attempts": 3, "hint": True, "max_tokens": 1000}
    annotate |= {"temperature": 0.6, "top_p": 0.9, "openai": server}
    annotate |= {"local": {"init": "", "batch_size": 3}}
    return ConfigDict(
        {"seed": 0, "data": {"before_target_time": False}, "prompt": prompt, "annotate": annotate}
    )
