"""Every human word of the prompts and of the template teacher, as data.

A `Wording` is a set of `str.format` templates; prompts/ and teachers/ fill them. `wording_of` makes the one
that fits a data set: its domain, its scale of ratings, titles with or without years. Each part that may be
unknown (year, genres, people, chains) has a template of its own, which vanishes with its content.
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
    """Templates; the names in braces are what each is filled with.

    In `chain`, `hops` and the rating templates: ratings r00, r10, r11, r01 as in `Chain`, titles i0 and
    i1, their genres i0_genres and i1_genres, the peer's name and peer_about; the {links} of a longer
    chain, and of its end the {last} item, its last_genres, and last_peer, who rated it before the user.
    A template for one hop names nothing that comes after this hop.
    """

    scale: Scale = FIVE_STARS
    like_above: float = 3.0  # a rating above it speaks for its item

    year: str  # {year}, after a title
    genres: str  # {genres}, after a title and year
    trait: str  # {name} {value}
    trait_joiner: str
    listing: tuple[str, str]  # between names of a sentence, and before the last
    peers: tuple[str, ...]  # what the companions are called, in order of appearance

    about: str  # {traits}: the target user
    like: str  # {title} {genres}
    like_joiner: str
    likes: str  # {likes}
    dislikes: str  # {likes}: what the user rated low, each as `like`
    rated: str  # {title} {genres} {rating}
    history: str  # {history}, each as `rated`, joined as likes are
    chain: str  # a whole chain, and its {number}
    link: str  # a further companion: {peer}, peer_about, {rating}; {item}, item_genres, {next_rating}
    chains: str  # {chains}
    peer_about: str  # {traits}: a companion
    candidate: dict[str, str]  # by answer: {number} {title} {genres}
    candidate_joiner: str
    candidates: str  # {candidates}
    request: str  # {places} of {count} candidates
    request_one: str  # {count}: one place
    request_all: str  # {count}: every candidate has a place
    reason: dict[str, str]  # how to reason from "chains"; from "likes" alone; from "neither"
    form: dict[str, str]  # by answer: {places}, how the answer looks
    form_one: dict[str, str]  # the same with one place

    question: str  # the chain without r01, and what it asks: r01
    question_link: str
    question_reason: str
    question_form: str
    no_reason: str  # instead of either way to reason

    liking: str  # {title} {genres}: will the user like it?
    verdicts: tuple[str, str]  # the answers to it: the user will not; the user will

    told: tuple[int, ...]  # statements before the taste; a user always gets the same number of these
    hops: tuple[str, ...]  # statements about a chain, in its order; the second may tell {agreement}
    link_hops: tuple[str, str]  # as `link`, a statement each
    guide: tuple[str, str]  # after a whole chain: {peer} rates much as the user does, or not; '' for none
    like_hop: str  # {title} {genres}: a statement when there is no chain
    taste_like: str  # {title} {genre}
    taste: str  # {likes} {genre}: the statement that concludes
    taste_chains: str  # {likes} {genre}: where chains speak for a genre and likes do not; '' for `taste`
    taste_open: str  # where nothing speaks for a genre; '' for `taste`
    taste_unknown: str  # when no like has a genre
    recap: str  # {history} of chains as `together`, else of likes: instead of a taste; '' for a taste
    together: str  # {peer} {titles}: what a companion and the user both rated, of a recap

    rating_hops: tuple[str, ...]  # r00; r10 and {agreement}; r11
    agreement: tuple[str, str, str]  # r10 against r00: equal, one apart, further apart
    expectation: tuple[str, str, str]  # r01 below, equal to, above the rating of last_peer
    expectation_again: tuple[str, str, str]  # the same where r00 stood likewise to r10

    def title(self, catalog: Catalog, item: int) -> str:
        """The item as prompts and answers name it: title, and year where known; never with '>'.

        No two items of a catalogue have one name: those that would are "Heat (version 1)" and so on.
        """
        year = int(catalog.year[item]) if self.year else 0
        title = catalog.shown(item)
        version = int((catalog.same_name if self.year else catalog.same_title)[item])
        if version:
            title += VERSION.format(version)
        return title + (self.year.format(year=year) if year else "")

    def genre_note(self, catalog: Catalog, item: int) -> str:
        """What follows a title where genres are told; '' when there are none."""
        genres = ", ".join(clean(genre) for genre in catalog.genres[item])
        return self.genres.format(genres=genres) if genres else ""

    def rating(self, value: float) -> str:
        """A rating as prompts show it: "4", "3.5"; "once", "12 times" of a count."""
        if self.scale.kind == COUNTS:
            return {1: "once", 2: "twice"}.get(value, f"{value:.15g} times")
        return f"{value + 0.0:.7g}"  # all digits of a float32; 0 and not -0

    @property
    def liked(self) -> float:
        """The lowest rating that is a like."""
        return self.scale.first_like(self.like_above)

    def is_like(self, rating: float) -> bool:
        """Whether a rating speaks for its item; compared in float32, as the log is."""
        return bool(np.float32(rating) > np.float32(self.like_above))

    def distance(self, one: float, other: float) -> int:
        """How far apart two ratings are: 0 equal, 1 within a quarter of the scale, 2 further."""
        apart = abs(one - other)
        return 0 if apart == 0 else 1 if apart <= (self.scale.most - self.scale.least) / 4 else 2

    def listed(self, names: list[str]) -> str:
        """Names one after another, as in a sentence."""
        between, last = self.listing
        return last.join([between.join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def traits(self, demographics: dict[str, str], template: str) -> str:
        """`template` filled with a user's {traits}; '' when nothing is known."""
        told = [
            self.trait.format(name=clean(name), value=clean(value)) for name, value in demographics.items()
        ]
        return template.format(traits=self.trait_joiner.join(told)) if told else ""


# For the tiny embedded model: few tokens, and mostly words that its pretraining text holds. A title
# is one token only after a space, so no title may begin a line.
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
    told=(2, 3, 4),
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

# For R2Rec-mini, whose tokenizer has a token for each title after a space: nothing stands between titles. A
# chain names the companion and both films first, then the ratings round the loop; its recap repeats the
# names as they stood, which a small model learns soon.
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
    told=(4,),
    chain="{peer} {i0} {i1} {r00} {r10} {r11}{links} {r01}",
    link=" {peer} {item} {rating} {next_rating}",
    candidate={"titles": " {title}", "numbers": " {number} {title}"},
    candidate_joiner="",
    candidates="Candidates:{candidates}.\n",
    request="Best {places}?",
    request_one="Best?",
    request_all="Best {count}?",
)

# Chains and hops of R2Rec-mini where there are no ratings.
MINI_WITHOUT = {
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
    """The wording called `name` for ratings on a scale; `dated`: titles have years.

    Args:
      like_above: a rating above it is a like; default: the scale's own threshold.

    Raises:
      UserError: an unknown name, the nearest being named, or one that has no words for such a scale.
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
            "prompt.wording='compact' has words for ratings alone, and the data have none: use "
            f"{', '.join((*DOMAINS, 'mini'))}"
        )
    form, without = (COMPACT, {}) if name == "compact" else (MINI, MINI_WITHOUT.get(scale.kind, {}))
    return dataclasses.replace(form, scale=scale, like_above=like_above, **without)


def wording_of(name: str, dataset: Dataset) -> Wording:
    """The wording called `name` for a data set: its scale, threshold of a like, and years.

    Raises UserError as `wording`.
    """
    dated = bool(np.any(dataset.catalog.year))
    return wording(name, dataset.scale, dataset.split.like_above, dated=dated)
