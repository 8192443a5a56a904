"""The peer of bench/grpo.py: GRPO steps of TRL, run as `grpo_trl.py FOLDER VARIANT`.

VARIANT is MODE,CACHE,DTYPE: eager or compiled (torch_compile of the trainer; TRL never compiles
generation); dynamic or static; float32 or autocast (bf16=True). FOLDER/grpo.npz contains `prompts` [B, P],
`rows` [N, R] and `steps`, the largest number of requests. The first reply is the mean log-probability of the
rows.

A request runs one step of `GRPOTrainer.train`, from on_step_begin to on_step_end: generation by transformers,
rewards, the reference's log-probabilities, loss, gradient and AdamW.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from serving import begin, wait
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def word_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose token i is the word "i", so that a text encodes to known tokens.

    The model never draws the end token, because its id is above the model's vocabulary.
    """
    words = {str(token): token for token in range(vocab_size)} | {"<end>": vocab_size}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


class OneStepPerRequest(TrainerCallback):
    def __init__(self, reply):
        self.reply = reply

    def on_step_begin(self, args, state, control, **kwargs):  # noqa: ARG002
        wait()

    def on_step_end(self, args, state, control, **kwargs):  # noqa: ARG002
        self.reply({"step": state.global_step})


def main(folder: Path, mode: str, cache: str, dtype: str) -> None:
    given = np.load(folder / "grpo.npz")
    prompts, rows = (torch.tensor(given[name], dtype=torch.long) for name in ("prompts", "rows"))
    (B, _), (N, R) = prompts.shape, rows.shape
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    rng = np.random.default_rng(0)
    random_prompts = rng.integers(0, base.config.vocab_size, (B * int(given["steps"]), prompts.shape[1]))
    with tempfile.TemporaryDirectory() as output:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: rng.normal(size=len(completions)).tolist(),
            args=GRPOConfig(
                output_dir=output,
                max_steps=int(given["steps"]),
                per_device_train_batch_size=N,
                gradient_accumulation_steps=1,
                num_generations=N // B,
                max_completion_length=R,
                num_iterations=1,
                beta=0.04,
                loss_type="grpo",
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                learning_rate=1e-4,
                cache_implementation=cache,
                use_cpu=True,
                bf16=dtype == "autocast",
                torch_compile=mode == "compiled",
                gradient_checkpointing=False,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"prompt": [" ".join(map(str, row)) for row in random_prompts]}),
            processing_class=word_tokenizer(base.config.vocab_size),
        )
        with torch.inference_mode():
            tokens = torch.cat([prompts.repeat_interleave(N // B, dim=0), rows], dim=1)
            logprobs, *_ = trainer._get_per_token_logps_and_entropies(
                trainer.model, tokens, torch.ones_like(tokens), R
            )
        reply = begin({"mean_logprob": logprobs.mean().item()})
        trainer.add_callback(OneStepPerRequest(reply))
        trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2].split(","))
