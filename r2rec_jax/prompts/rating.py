"""The interaction-of-thought question: what did the user rate the chain's second item?"""

from r2rec_jax.chains.sampler import Chain
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.ranking import chain_facts, peer_names
from r2rec_jax.prompts.wording import Wording


def rating_prompt(chain: Chain, catalog: Catalog, demographics: dict[str, str], wording: Wording) -> str:
    """The text of the user turn: the chain up to r11, the target user's `demographics`, and the
    question for r01."""
    facts = hidden_facts(chain, catalog, wording)
    return wording.question.format(about=wording.traits(demographics, wording.about), **facts)


def hidden_facts(chain: Chain, catalog: Catalog, wording: Wording) -> dict[str, str]:
    """`chain_facts` without r01: a template that told it would fail instead of leaking."""
    facts = chain_facts(chain, catalog, wording, peer_names([chain], wording)[chain.peer])
    del facts["r01"]
    return facts
