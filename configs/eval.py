"""Evaluation: policies on the same frozen candidates as launch.baselines.

Temperature 0.6, top-p 0.9 and the mean of three runs, as in the paper. --config.rollout.temperature=0
decodes greedily, in one run.

    python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval

Needs what configs/grpo.py needs and the workdirs that `systems` names. The paper reports about 2 s per user
on one A100-80G; not measured here. `configs/eval.py:quickstart` uses the bundled data and model.

    python -m launch.eval --config=configs/eval.py:compared --workdir=runs/ml1m/compared

The paper's other systems with language models: the bare base without reasoning or chains, ChatRec's prompt,
TALLRec, LLaRA (configs/tallrec.py, configs/llara.py) and two models behind a server, whose key is in
OPENAI_API_KEY. 1,000 users of ML-1M are a million prompt tokens per run: check the prices and `cost_limit`.

Each system has a mode and prompt fields of its own: --config.systems.sft.mode=likelihood, or, in a config
file, system("runs/ml1m/sft", prompt={"chains": 0}, samples=8).
"""

from ml_collections import ConfigDict

from configs import llara, tallrec
from configs.base import mini, preset_of, server, system, tiny
from configs.declared import EvaluationRun
from r2rec_jax.runtime.fields import to_config_dict


def get_config(preset: str | None = None) -> ConfigDict:
    c = to_config_dict(EvaluationRun())
    del c.rollout.constrained  # a system's `mode` sets it
    c.systems = ConfigDict({"base": system(), "sft": system("runs/ml1m/sft")})
    c.systems["sft+grpo"] = system("runs/ml1m/grpo")
    preset = preset_of(preset, ("quickstart", "mini", "compared"))
    if preset == "mini":
        mini(c)
        c.systems.sft.adapter, c.systems["sft+grpo"].adapter = "runs/mini/seed0/sft", "runs/mini/seed0/grpo"
        for ranked in c.systems.values():
            ranked.mode = "likelihood"
        c.evaluate.update({"batch_size": 100, "runs": 1})
        c.rollout.update({"max_tokens": 64, "chunk": 16, "temperature": 0.0, "top_p": 1.0})
        c.reward.step_needs_valid_answer = True
    if preset == "compared":
        c.systems = ConfigDict({"base": system(), "no reasoning": system(prompt={"reasoning": False})})
        c.systems["no chains"] = system(prompt={"chains": 0})
        c.systems.chatrec = system(prompt={"history": 20, "likes": 0, "chains": 0, "reasoning": False})
        c.systems.tallrec = system("runs/ml1m/tallrec", kind="tallrec", prompt=tallrec.PROMPT)
        c.systems.llara = system("runs/ml1m/llara", mode="likelihood", prompt=llara.PROMPT)
        c.model.item_table = llara.get_config().model.item_table
        prices = {"prompt_price": 0.15, "completion_price": 0.6, "cost_limit": 5.0}
        c.systems["gpt-4o-mini"] = system(kind="server", served=server("gpt-4o-mini", **prices))
        prices = {"prompt_price": 1.1, "completion_price": 4.4, "cost_limit": 50.0}
        c.systems["o4-mini"] = system(kind="server", served=server("o4-mini", thought_tokens=8192, **prices))
    if preset == "quickstart":
        tiny(c)
        c.systems.sft.adapter = "runs/quickstart/sft"
        c.systems["sft+grpo"].adapter = "runs/quickstart/grpo"
        c.evaluate.update({"batch_size": 50, "runs": 1})
        c.rollout.update({"max_tokens": 64, "chunk": 16})
        c.reward.step_needs_valid_answer = True
    return c
