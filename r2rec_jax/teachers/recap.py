"""The recap: a statement that repeats the user's interactions in the prompt, for wordings that have one."""

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.ranking_prompt import RankingRecord, peer_names
from r2rec_jax.prompts.wording import Wording


def recap(record: RankingRecord, catalog: Catalog, wording: Wording) -> str:
    """Lists, chain by chain, the items that the user rated and the companion who shares them.

    A prompt without chains gives the likes instead.
    """

    def listed(items: list[int]) -> str:
        return wording.like_joiner.join(
            wording.like.format(title=wording.title(catalog, item), genres=wording.genre_note(catalog, item))
            for item in items
        )

    names = peer_names(record.chains, wording)
    shared = [
        pair
        for chain in record.chains
        for pair in (
            [(chain.peers[0], [chain.i0]), (chain.peers[-1], [chain.items[-1]])]
            if chain.more
            else [(chain.peer, [chain.i0, chain.i1])]
        )
    ]
    parts = [wording.together.format(peer=names[peer], titles=listed(items)) for peer, items in shared]
    if not parts and not record.likes:
        return wording.taste_unknown
    return wording.recap.format(history="".join(parts) or listed(record.likes))
