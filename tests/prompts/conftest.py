"""The corpus, and the tokenizers: a tiny one trained here, and the real one where it is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.corpus import Corpus
from r2rec_jax.prompts.train_tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def corpus_data() -> Dataset:
    """The whole catalogue of 200 titles, as pretraining has it."""
    log, catalog = generate(seed=1000, users=300)
    return Dataset("corpus", log, catalog, split(log, seed=0, sizes={}))


@pytest.fixture(scope="session")
def corpus(corpus_data) -> Corpus:
    return Corpus(corpus_data.interactions, corpus_data.catalog, build_graph(corpus_data))


@pytest.fixture(scope="session")
def tiny_chat(corpus, tmp_path_factory) -> Chat:
    rng = np.random.default_rng(0)
    documents = [corpus.document(rng, 20) for _ in range(3000)]
    texts = (text for d in documents for text in (d.context, d.text, d.reasoning or ""))
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts, 1024).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    folder = Path(os.environ.get("R2REC_SHARED", "../shared")) / "data" / "tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set R2REC_SHARED to the folder above data/")
    return folder


@pytest.fixture(scope="session")
def real_chat(tokenizer_folder) -> Chat:
    return Chat(tokenizer_folder)


@pytest.fixture(params=["tiny_chat", "real_chat"])
def chat(request) -> Chat:
    return request.getfixturevalue(request.param)
