"""Every human word of the prompts and of the template teacher, as data.

A `Wording` is a set of `str.format` templates; prompts/ and
teachers/ fill them. Supporting another domain means writing another instance here, not another branch
there. Each part that may be unknown (year, genres, people, chains) has a template of its own, which
vanishes with what it would have told.
"""

import dataclasses
import difflib
import functools

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.chat import plain
from r2rec_jax.runtime.errors import UserError

ANSWERS = ("titles", "numbers")  # what the ranking line names
LIKED = 4.0  # from this rating on, a rating speaks for its item


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wording:
    """Templates; the names in braces are what each is filled with.

    In `chain`, `hops` and the rating templates: ratings r00, r10, r11, r01 as in `Chain`, titles i0 and
    i1, their genres i0_genres and i1_genres, the peer's name and peer_about; the {links} of a longer
    chain, and of its end the {last} item, its last_genres, and last_peer, who rated it before the user.
    A template for one hop names nothing that comes after this hop.
    """

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
        """The item as prompts and answers name it: title, and year where known; never with '>'."""
        year = int(catalog.year[item])
        title = clean(catalog.title[item]) or f"item {item}"
        return title + (self.year.format(year=year) if year else "")

    def genre_note(self, catalog: Catalog, item: int) -> str:
        """What follows a title where genres are told; '' when there are none."""
        genres = ", ".join(clean(genre) for genre in catalog.genres[item])
        return self.genres.format(genres=genres) if genres else ""

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


def wording(name: str) -> Wording:
    """The wording called `name`. Raises UserError for an unknown one, naming the nearest."""
    if name not in WORDINGS:
        near = difflib.get_close_matches(name, WORDINGS, n=1, cutoff=0.0)[0]
        raise UserError(f"no wording {name!r}, did you mean {near!r}? there are {', '.join(WORDINGS)}")
    return WORDINGS[name]


@functools.lru_cache(maxsize=1 << 16)
def clean(text: str) -> str:
    """`plain` text without '>', which separates the places of an answer."""
    return " ".join(plain(text).replace(">", " ").split())


MOVIES = Wording(
    year=" ({year})",
    genres=" [{genres}]",
    trait="{name} {value}",
    trait_joiner=", ",
    listing=(", ", " and "),
    peers=tuple(f"Person {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    about="About the viewer: {traits}.\n\n",
    like="- {title}{genres}",
    like_joiner="\n",
    likes="Films the viewer liked most recently, oldest first:\n{likes}\n\n",
    dislikes="Films the viewer rated most recently and did not like, oldest first:\n{likes}\n\n",
    rated="- {title}{genres}: {rating}",
    history=(
        "Films the viewer rated most recently, oldest first, with ratings from 1 (worst) to 5 (best):\n"
        "{history}\n\n"
    ),
    chain=(
        "{number}. The viewer gave {i0}{i0_genres} a {r00}. {peer}{peer_about} gave the same film a {r10}. "
        "{peer} also gave {i1}{i1_genres} a {r11}. {links}The viewer gave that film a {r01}."
    ),
    link=(
        "{peer}{peer_about} gave that film a {rating}. {peer} also gave {item}{item_genres} a {next_rating}. "
    ),
    chains=(
        "Rating chains, with ratings from 1 (worst) to 5 (best). Each is a loop that starts and ends with "
        "the viewer and goes from one person to the next through a film that both have rated.\n"
        "{chains}\n\n"
    ),
    peer_about=" ({traits})",
    candidate=dict.fromkeys(ANSWERS, "{number}. {title}{genres}"),
    candidate_joiner="\n",
    candidates="Candidates, films the viewer has not rated yet, in no particular order:\n{candidates}\n\n",
    request="Which film will the viewer like next? Rank the {places} likeliest of {count} candidates.\n\n",
    request_one="Which film will the viewer like next? Name the likeliest of {count} candidates.\n\n",
    request_all="Which film will the viewer like next? Rank all {count} candidates.\n\n",
    reason={
        "chains": (
            "First reason, one short statement a line. Follow at least one chain from its beginning, a "
            "statement for each rating: it builds on those before it and uses nothing from further along "
            "the chain. Then say what the chain and the liked films tell of the viewer's taste. Name no "
            "candidate while you reason.\n\n"
        ),
        "likes": (
            "First reason, one short statement a line, each building only on those before it: go through "
            "the liked films, then say what they tell of the viewer's taste. Name no candidate while you "
            "reason.\n\n"
        ),
        "neither": (
            "First reason, one short statement a line, each building only on those before it. Name no "
            "candidate while you reason.\n\n"
        ),
    },
    form={
        "titles": (
            "Give the answer as a single line: title and year of {places} different candidates, the "
            "likeliest first, in this form:\n"
            "Order: title (year) of the likeliest > title (year) of the second > and so on"
        ),
        "numbers": (
            "Give the answer as a single line: the numbers of {places} different candidates, the "
            "likeliest first, in this form:\n"
            "Order: number of the likeliest > number of the second > and so on"
        ),
    },
    form_one={
        "titles": "Give the answer as a single line: title and year, in this form:\nOrder: title (year)",
        "numbers": "Give the answer as a single line: the candidate's number, in this form:\nOrder: number",
    },
    question=(
        "A rating chain, with ratings from 1 (worst) to 5 (best). It is a loop that starts and ends with a "
        "viewer and goes from one person to the next through a film that both have rated.\n\n"
        "{about}"
        "- The viewer gave {i0}{i0_genres} a {r00}.\n"
        "- {peer}{peer_about} gave the same film a {r10}.\n"
        "- {peer} also gave {i1}{i1_genres} a {r11}.\n"
        "{links}"
        "- The viewer gave that film a ?\n\n"
        "Which rating did the viewer give {last}?\n\n"
    ),
    question_link=(
        "- {peer}{peer_about} gave that film a {rating}.\n"
        "- {peer} also gave {item}{item_genres} a {next_rating}.\n"
    ),
    question_reason=(
        "First reason, one short statement a line. Follow the chain from its beginning, a statement for "
        "each rating: it builds on those before it and uses nothing from further along the chain. Then "
        "say what to expect, without naming the rating while you reason.\n\n"
    ),
    question_form="Give the answer as a single line, in this form:\nRating: a number from 1 to 5",
    no_reason="Do not reason or explain.\n\n",
    liking="Will the viewer like {title}{genres}? Answer Yes or No, and nothing else.",
    verdicts=("No", "Yes"),
    told=(4,),
    hops=(
        "The viewer gave {i0}{i0_genres} a {r00}.",
        "{peer} gave the same film a {r10}, so {agreement}.",
        "{peer} also gave {i1}{i1_genres} a {r11}.",
        "The viewer gave that film a {r01}.",
    ),
    link_hops=(
        "{peer} gave that film a {rating}.",
        "{peer} also gave {item}{item_genres} a {next_rating}.",
    ),
    guide=(
        "So what {peer} likes is a fair guide to what the viewer likes.",
        "So what {peer} likes is a poor guide to what the viewer likes.",
    ),
    like_hop="The viewer liked {title}{genres}.",
    taste_like="{title}",
    taste="Of the films liked most recently, {genre} is found in {likes}, so {genre} should fit well.",
    taste_chains=(
        "The films liked most recently are of other kinds, but among those of the chains the viewer also "
        "rated {likes} highly, so {genre} can fit well too."
    ),
    taste_open=(
        "The films liked most recently are mostly {genre}, as in {likes}, yet nothing here ties the "
        "viewer to one kind, so another kind can fit too."
    ),
    taste_unknown="What is closest to the films liked most recently should fit best.",
    recap="",
    together="",
    rating_hops=(
        "The viewer gave {i0}{i0_genres} a {r00}.",
        "{peer} gave the same film a {r10}, so {agreement}.",
        "{peer} also gave {i1}{i1_genres} a {r11}.",
    ),
    agreement=(
        "the two agree on it",
        "the two nearly agree on it",
        "the two differ clearly on it",
    ),
    expectation=(
        "One film settles little, and the viewer may well like {last} less than {last_peer} did.",
        "One film settles little, and the viewer may well like {last} just as much as {last_peer} did.",
        "One film settles little, and the viewer may well like {last} more than {last_peer} did.",
    ),
    expectation_again=(
        "The viewer was harder to please than {peer}, and so should like {last} less than {last_peer} did.",
        "The viewer saw the first film as {peer} did, and so should like {last} as much as {last_peer} did.",
        "The viewer was easier to please than {peer}, and so should like {last} more than {last_peer} did.",
    ),
)


def _reworded(words: Wording, swaps: dict[str, str]) -> Wording:
    """`words` with every occurrence of a key of `swaps` replaced, in all its templates."""

    def swap(value):
        if isinstance(value, str):
            for old, new in swaps.items():
                value = value.replace(old, new)
            return value
        if isinstance(value, dict):
            return {key: swap(text) for key, text in value.items()}
        return tuple(swap(part) for part in value) if isinstance(value, tuple) else value

    fields = {field.name: swap(getattr(words, field.name)) for field in dataclasses.fields(words)}
    return Wording(**fields)


# Catalogues of products tell no year.
_YEARLESS = {"title and year": "title", "title (year)": "title"}
BOOKS = _reworded(MOVIES, _YEARLESS | {"film": "book", "viewer": "reader"})
PRODUCTS = _reworded(MOVIES, _YEARLESS | {"film": "product", "viewer": "customer"})

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

WORDINGS = {"movies": MOVIES, "books": BOOKS, "products": PRODUCTS, "compact": COMPACT, "mini": MINI}
