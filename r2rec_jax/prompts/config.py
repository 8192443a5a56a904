"""The `prompt` section of a config: what a prompt shows and what it asks for."""

from r2rec_jax.runtime.fields import Section, declaration, field
from r2rec_jax.runtime.ranges import BUCKETS, one_of, whole

ANSWERS = ("titles", "numbers")
# uniform, similar, candidate_aware: weights of r2rec_jax/chains/companions.py.
CHAIN_SELECTIONS = ("uniform", "similar", "candidate_aware", "recent")


@declaration
class PromptConfig(Section):
    """What a prompt shows and asks for."""

    WHERE = "prompt"
    wording: str = field("movies", "Wording of prompts: a name of r2rec_jax/prompts/wording.py.")
    answer: str = field("numbers", "What the ranking names candidates by.", one_of(*ANSWERS))
    places: int = field(20, "Places of the ranking that is asked for, at most `data.candidates`.", whole(1))
    reasoning: bool = field(True, "Whether reasoning comes before the answer.")
    likes: int = field(5, "Most recent likes that a prompt shows.", whole(0))
    history: int = field(0, "Most recent rated items that a prompt shows with their ratings.", whole(0))
    chains: int = field(5, "Interaction chains that a prompt shows.", whole(0))
    chain_length: int = field(1, "Companions in a chain.", whole(1))
    chain_selection: str = field(
        "uniform",
        "How companions are drawn; similar: by agreement of ratings; candidate_aware: raters of candidates; "
        "recent: through the user's latest ratings.",
        one_of(*CHAIN_SELECTIONS),
    )
    item_tokens: bool = field(False, "Whether a token of `model.item_table` follows each title, as in LLaRA.")
    buckets: tuple[int, ...] = field(
        (256, 512, 1024, 1088, 2048, 4096),
        "Padded prompt lengths in tokens; a prompt above the largest loses chains, then likes.",
        BUCKETS,
    )
