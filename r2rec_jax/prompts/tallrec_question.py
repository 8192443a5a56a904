"""TALLRec's question (Bao et al. 2023, arXiv 2305.00447): will a user of this history like this item?"""

import functools

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.ranking_prompt import told
from r2rec_jax.prompts.wording import Wording


def history_text(history: list[tuple[int, float]], catalog: Catalog, wording: Wording) -> str:
    """The first part of the user turn: rated items, oldest first, those liked apart from the others."""
    parts, tell = [], functools.partial(told, wording.like, catalog=catalog, wording=wording)
    for template, liked in ((wording.likes, True), (wording.dislikes, False)):
        items = [item for item, rating in history if wording.is_like(rating) == liked]
        if items:
            parts.append(template.format(likes=wording.like_joiner.join(map(tell, items))))
    return "".join(parts)


def question_text(item: int, catalog: Catalog, wording: Wording) -> str:
    """What follows it, and all of the turn that depends on the item."""
    return told(wording.liking, item, catalog=catalog, wording=wording)
