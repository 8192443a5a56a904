"""The templates with all words of the prompts and of the template teacher.

A `Wording` is a set of `str.format` templates that prompts/ and teachers/ fill. `wording_of` makes the one
for a data set: its domain, its rating scale, and titles with or without years. Each part that may be unknown
(year, genres, people, chains) has its own template, which is omitted if the part is empty.
"""

import dataclasses
import difflib
import functools

import numpy as np

from r2rec_jax.data.duplicate_titles import VERSION
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.rating_scale import COUNTS, FIVE_STARS, NONE, STARS, Scale
from r2rec_jax.prompts.domains import ANSWERS, DOMAINS, domain_templates
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.plain_text import clean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wording:
    """A set of templates. The comment of each field lists the names in braces that fill it.

    `chain`, `hops` and the rating templates have these fields: ratings r00, r10, r11, r01 as in `Chain`;
    titles i0 and i1 with genres i0_genres and i1_genres; the peer's name and peer_about; the {links} of a
    longer chain; the {last} item with last_genres; and last_peer, the companion who rated the last item.
    The template of one hop uses no field of later hops.
    """

    scale: Scale = FIVE_STARS
    like_above: float = 3.0  # a rating above it is a like

    year: str  # {year}, after a title
    genres: str  # {genres}, after a title and year
    trait: str  # {name} {value}
    trait_joiner: str
    listing: tuple[str, str]  # between names of a sentence, and before the last
    peers: tuple[str, ...]  # names of the companions, in order of appearance

    about: str  # {traits}: the target user
    like: str  # {title} {genres}
    like_joiner: str
    likes: str  # {likes}
    dislikes: str  # {likes}: items with low ratings, each formatted with `like`
    rated: str  # {title} {genres} {rating}
    history: str  # {history}: items formatted with `rated`, joined with `like_joiner`
    chain: str  # a complete chain with its {number}
    link: str  # a further companion: {peer}, peer_about, {rating}; {item}, item_genres, {next_rating}
    chains: str  # {chains}
    peer_about: str  # {traits}: a companion
    candidate: dict[str, str]  # by answer: {number} {title} {genres}
    candidate_joiner: str
    candidates: str  # {candidates}
    request: str  # {places} of {count} candidates
    request_one: str  # {count}: rank one candidate
    request_all: str  # {count}: rank all candidates
    reason: dict[str, str]  # instruction to reason: from "chains", from "likes" only, from "neither"
    form: dict[str, str]  # by answer: {places}, the format of the answer
    form_one: dict[str, str]  # the format of an answer with one place

    question: str  # the chain without r01, and the question for r01
    question_link: str
    question_reason: str
    question_form: str
    no_reason: str  # replaces `reason` and `question_reason` in prompts without reasoning

    liking: str  # {title} {genres}: TALLRec's question whether the user likes the item
    verdicts: tuple[str, str]  # its answers: no, yes

    hop_counts: tuple[int, ...]  # numbers of statements before the taste, indexed by user % length
    hops: tuple[str, ...]  # one statement per hop of a chain, in order; the second may use {agreement}
    link_hops: tuple[str, str]  # the two statements about a `link`
    guide: tuple[str, str]  # after a complete chain: {peer} rates like the user, or not; '' for none
    like_hop: str  # {title} {genres}: a statement in prompts without chains
    taste_like: str  # {title} {genre}: a like in a taste statement
    taste: str  # {likes} {genre}: the concluding statement
    taste_chains: str  # {likes} {genre}: the chains but not the likes favour a genre; '': uses `taste`
    taste_open: str  # no genre is favoured; '': uses `taste`
    taste_unknown: str  # no like has a genre
    recap: str  # {history}: replaces the taste; chains formatted with `together`, else likes; '': none
    together: str  # {peer} {titles}: items that a companion and the user both rated, in a recap

    rating_hops: tuple[str, ...]  # r00; r10 and {agreement}; r11
    agreement: tuple[str, str, str]  # r10 against r00: equal, one apart, further apart
    expectation: tuple[str, str, str]  # r01 below, equal to, above the rating of last_peer
    expectation_again: tuple[str, str, str]  # as `expectation`, if r00 compares with r10 in the same way

    def title(self, catalog: Catalog, item: int) -> str:
        """The item's name in prompts and answers: title, and year if known. It never contains '>'.

        Names are unique within a catalogue: equal ones become "Heat (version 1)", "Heat (version 2)", ...
        """
        year = int(catalog.year[item]) if self.year else 0
        title = catalog.shown(item)
        version = int((catalog.same_name if self.year else catalog.same_title)[item])
        if version:
            title += VERSION.format(version)
        return title + (self.year.format(year=year) if year else "")

    def genre_note(self, catalog: Catalog, item: int) -> str:
        """The genres in the form that follows a title; '' if the item has none."""
        genres = ", ".join(clean(genre) for genre in catalog.genres[item])
        return self.genres.format(genres=genres) if genres else ""

    def rating(self, value: float) -> str:
        """A rating as prompts show it: "4" or "3.5"; "once" or "12 times" for a count."""
        if self.scale.kind == COUNTS:
            return {1: "once", 2: "twice"}.get(value, f"{value:.15g} times")
        return f"{value + 0.0:.7g}"  # all digits of a float32; 0 and not -0

    @property
    def liked(self) -> float:
        """The lowest rating that is a like."""
        return self.scale.first_like(self.like_above)

    def is_like(self, rating: float) -> bool:
        """Whether a rating is a like. The comparison is in float32, the dtype of the log."""
        return bool(np.float32(rating) > np.float32(self.like_above))

    def distance(self, rating: float, other: float) -> int:
        """Distance of two ratings: 0 if equal, 1 within a quarter of the scale, 2 if larger."""
        difference = abs(rating - other)
        return 0 if difference == 0 else 1 if difference <= (self.scale.most - self.scale.least) / 4 else 2

    def listed(self, names: list[str]) -> str:
        """Joins names to an enumeration within a sentence."""
        between, last = self.listing
        return last.join([between.join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def traits(self, demographics: dict[str, str], template: str) -> str:
        """Fills `template` with a user's {traits}; '' if there are no demographics."""
        traits = [
            self.trait.format(name=clean(name), value=clean(value)) for name, value in demographics.items()
        ]
        return template.format(traits=self.trait_joiner.join(traits)) if traits else ""


# For the bundled tiny model: few tokens, and mostly words of its pretraining text. A title is one token only
# after a space, so no title may begin a line.
COMPACT = Wording(
    year="",
    genres=", a {genres}",
    trait="{value}",
    trait_joiner=", ",
    listing=(", ", ", "),
    peers=("Jo", "Lea", "Max", "Nia", "Ben", "Eve", "Hal", "Gus", "Ann", "Dan", "Finn", "Cleo"),
    about="Kai: {traits}.\n",
    like="{title}",
    like_joiner=", ",
    likes="Kai is fond of {likes}.\n",
    dislikes="Kai is less fond of {likes}.\n",
    rated="{title} a {rating}",
    history="Kai gave {history}.\n",
    chain="Kai {r00} {i0} {r10} {peer} {r11} {i1}{links} {r01} Kai",
    link=" {rating} {peer} {next_rating} {item}",
    chains="{chains}\n",
    peer_about="",
    candidate={"titles": "{title}", "numbers": "{number} {title}"},
    candidate_joiner=", ",
    candidates="Candidates: {candidates}.\n",
    request="Rank the best {places}.",
    request_one="Rank the best 1.",
    request_all="Rank the best {count}.",
    reason={"chains": "", "likes": "", "neither": ""},
    form=dict.fromkeys(ANSWERS, ""),
    form_one=dict.fromkeys(ANSWERS, ""),
    question="{about}Kai {r00} {i0} {r10} {peer} {r11} {i1}{i1_genres}{links}.\nKai gave it what?",
    question_link=" {rating} {peer} {next_rating} {item}{item_genres}",
    question_reason="",
    question_form="",
    no_reason="",
    liking="Kai gave {title}{genres} what?",
    verdicts=("Kai gave it a 2.", "Kai gave it a 5."),
    hop_counts=(2, 3, 4),
    hops=(
        "Kai gave {i0} a {r00}.",
        "{peer} gave it a {r10}.",
        "{peer} gave {i1} a {r11}{i1_genres}.",
        "Kai gave it a {r01}.",
    ),
    link_hops=("{peer} gave it a {rating}.", "{peer} gave {item} a {next_rating}{item_genres}."),
    guide=("", ""),
    like_hop="Kai is fond of {title}{genres}.",
    taste_like="{title}",
    taste="Kai: the favourites {likes} are mostly {genre}.",
    taste_chains="",
    taste_open="",
    taste_unknown="Kai is fond of more like it.",
    recap="",
    together="",
    rating_hops=(
        "Kai gave {i0} a {r00}.",
        "{peer} gave it a {r10}, {agreement}.",
        "{peer} gave {i1} a {r11}{i1_genres}.",
    ),
    agreement=("so the same", "so mostly the same", "so not the same"),
    expectation=(
        "Kai is less fond of it.",
        "Kai is as fond of it.",
        "Kai is more fond of it.",
    ),
    expectation_again=(
        "Kai is less fond of it.",
        "Kai is as fond of it.",
        "Kai is more fond of it.",
    ),
)

# For R2Rec-mini, whose tokenizer has one token per title after a space, so titles need no separator. A chain
# lists the companion and both films first, then the ratings in the order of the loop. Its recap repeats the
# names in the same order, which a small model learns quickly.
MINI = dataclasses.replace(
    COMPACT,
    year=" ({year})",
    genres="",
    like=" {title}",
    like_joiner="",
    likes="Kai is fond of{likes}.\n",
    dislikes="Kai is less fond of{likes}.\n",
    rated=" {title}",
    history="Kai saw{history}.\n",
    recap="Kai saw{history}.",
    together=" with {peer}{titles}",
    hop_counts=(4,),
    chain="{peer} {i0} {i1} {r00} {r10} {r11}{links} {r01}",
    link=" {peer} {item} {rating} {next_rating}",
    candidate={"titles": " {title}", "numbers": " {number} {title}"},
    candidate_joiner="",
    candidates="Candidates:{candidates}.\n",
    request="Best {places}?",
    request_one="Best?",
    request_all="Best {count}?",
)

# Chains and hops of R2Rec-mini for counts, and for interactions without ratings.
MINI_UNRATED = {
    COUNTS: {
        "hops": (
            "Kai saw {i0} {r00}.",
            "{peer} saw it {r10}.",
            "{peer} saw {i1} {r11}.",
            "Kai saw it {r01}.",
        ),
        "link_hops": ("{peer} saw it {rating}.", "{peer} saw {item} {next_rating}."),
    },
    NONE: {
        "chain": "{peer} {i0} {i1}{links}",
        "link": " {peer} {item}",
        "hops": ("Kai saw {i0}.", "{peer} saw it.", "{peer} saw {i1}.", "Kai saw it."),
        "link_hops": ("{peer} saw it.", "{peer} saw {item}."),
    },
}

WORDINGS = (*DOMAINS, "compact", "mini")


@functools.cache
def wording(
    name: str, scale: Scale = FIVE_STARS, like_above: float | None = None, *, dated: bool = True
) -> Wording:
    """The wording called `name` for ratings on a scale.

    Args:
      like_above: a rating above it is a like. Default: the scale's own threshold.
      dated: whether titles have years.

    Raises:
      UserError: an unknown name (the message suggests the nearest), or a wording without words for the scale.
    """
    if name not in WORDINGS:
        near = difflib.get_close_matches(name, WORDINGS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"prompt.wording={name!r} is unknown, did you mean {near!r}? there are {', '.join(WORDINGS)}"
        )
    like_above = scale.like_above if like_above is None else like_above
    if name in DOMAINS:
        return Wording(
            scale=scale, like_above=like_above, **domain_templates(DOMAINS[name], scale, dated=dated)
        )
    if scale.kind != STARS and name == "compact":
        raise UserError(
            "prompt.wording='compact' has words for ratings only, but the data have no ratings: use "
            f"{', '.join((*DOMAINS, 'mini'))}"
        )
    base, changes = (COMPACT, {}) if name == "compact" else (MINI, MINI_UNRATED.get(scale.kind, {}))
    return dataclasses.replace(base, scale=scale, like_above=like_above, **changes)


def wording_of(name: str, dataset: Dataset) -> Wording:
    """The wording called `name` for a data set's scale, like threshold and years. Raises as `wording`."""
    dated = bool(np.any(dataset.catalog.year))
    return wording(name, dataset.scale, dataset.split.like_above, dated=dated)
