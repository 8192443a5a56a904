"""The interaction-of-thought question, which requests the user's rating of a chain's last item."""

from r2rec_jax.chains.chain import Chain
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.ranking_prompt import chain_facts, link_facts, peer_names
from r2rec_jax.prompts.wording import Wording


def rating_prompt(
    chain: Chain,
    catalog: Catalog,
    demographics: dict[str, str],
    wording: Wording,
    *,
    reasoning: bool = True,
) -> str:
    """The text of the user turn: the chain without r01, the target user's `demographics`, and the question.

    reasoning: if False, the prompt requests the answer only.
    """
    links = link_facts(chain, catalog, wording, peer_names([chain], wording))
    question = wording.question.format(
        about=wording.traits(demographics, wording.about),
        links="".join(wording.question_link.format(**link) for link in links),
        **hidden_facts(chain, catalog, wording),
    )
    return question + (wording.question_reason if reasoning else wording.no_reason) + wording.question_form


def hidden_facts(chain: Chain, catalog: Catalog, wording: Wording) -> dict[str, str]:
    """`chain_facts` without r01. A template that uses r01 raises KeyError instead of leaking it."""
    facts = chain_facts(chain, catalog, wording, peer_names([chain], wording))
    del facts["r01"]
    return facts
