"""TALLRec's question whether a user with this history likes an item (Bao et al. 2023, arXiv 2305.00447)."""

import functools

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.ranking_prompt import item_text
from r2rec_jax.prompts.wording import Wording


def history_text(history: list[tuple[int, float]], catalog: Catalog, wording: Wording) -> str:
    """The first part of the user turn: liked items, then the other rated items, each oldest first."""
    parts, fill = [], functools.partial(item_text, wording.like, catalog=catalog, wording=wording)
    for template, liked in ((wording.likes, True), (wording.dislikes, False)):
        items = [item for item, rating in history if wording.is_like(rating) == liked]
        if items:
            parts.append(template.format(likes=wording.like_joiner.join(map(fill, items))))
    return "".join(parts)


def question_text(item: int, catalog: Catalog, wording: Wording) -> str:
    """The second part of the user turn, the only one that depends on the item."""
    return item_text(wording.liking, item, catalog=catalog, wording=wording)
