"""Every human word of the prompts and of the template teacher, as data.

A `Wording` is a set of `str.format` templates; prompts/ranking.py, rating.py and teacher.py fill
them. Supporting another domain means writing another instance here, not another branch there.
Each part that may be unknown (year, genres, people, chains) has a template of its own, which
vanishes with what it would have told.
"""

import dataclasses
import difflib

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.chat import plain
from r2rec_jax.runtime.errors import UserError

ANSWERS = ("titles", "numbers")  # what the ranking line names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wording:
    """Templates; the names in braces are what each is filled with.

    In `chain`, `hops` and the rating templates: user's and peer's ratings r00, r10, r11, r01 as in
    `Chain`, titles i0 and i1, their genres i0_genres and i1_genres, the peer's name and peer_about.
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
    chain: str  # a whole chain, and its {number}
    chains: str  # {chains}
    peer_about: str  # {traits}: a companion
    candidate: dict[str, str]  # by answer: {number} {title} {genres}
    candidate_joiner: str
    candidates: str  # {candidates}
    request: dict[str, str]  # by answer: {places} {count}

    question: str  # the chain without r01, and what it asks: r01

    hops: tuple[str, ...]  # statements about a chain, in its order
    like_hop: str  # {title} {genres}: a statement when there is no chain
    taste_like: str  # {title} {genre}
    taste: str  # {likes} {genre}: the statement that concludes
    taste_unknown: str  # the same when no like has a genre

    rating_hops: tuple[str, ...]  # r00; r10 and {agreement}; r11
    agreement: tuple[str, str, str]  # r10 against r00: equal, one apart, further apart
    expectation: tuple[str, str, str]  # r01 below, equal to, above r11

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


def clean(text: str) -> str:
    """`plain` text without '>', which separates the places of an answer."""
    return " ".join(plain(text).replace(">", " ").split())


_MOVIES_REQUEST = """
Predict what the viewer will enjoy next: of these {count} candidates rank the {places} that fit \
best, best first.

First reason step by step, one short statement a line. Start from the rating chains, follow them \
hop by hop, and let each statement build only on the ones before it; then say what they and the \
liked films tell of the viewer's taste.

Then answer with a single line that names exactly {places} different candidates by """

MOVIES = Wording(
    year=" ({year})",
    genres=" [{genres}]",
    trait="{name} {value}",
    trait_joiner=", ",
    listing=(", ", " and "),
    peers=tuple(f"Person {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    about="The viewer: {traits}.\n\n",
    like="- {title}{genres}",
    like_joiner="\n",
    likes="Films the viewer liked most recently, in the order of watching:\n{likes}\n\n",
    chain=(
        "{number}. The viewer rated {i0}{i0_genres} {r00}, and {peer}{peer_about} rated it {r10}. "
        "{peer} rated {i1}{i1_genres} {r11}, and the viewer rated it {r01}."
    ),
    chains=(
        "Rating chains. Each joins the viewer and another person through two films that both have "
        "rated, from 1 (worst) to 5 (best):\n{chains}\n\n"
    ),
    peer_about=" ({traits})",
    candidate=dict.fromkeys(ANSWERS, "{number}. {title}{genres}"),
    candidate_joiner="\n",
    candidates="Candidates:\n{candidates}\n",
    request={
        "titles": _MOVIES_REQUEST + "title and year, in this form:\n"
        "Order: best title (year) > second title (year) > and so on",
        "numbers": _MOVIES_REQUEST + "number, in this form:\nOrder: best number > second number > and so on",
    },
    question=(
        "This is a chain of film ratings, from 1 (worst) to 5 (best). It joins a viewer and "
        "another person, {peer}, through two films that both have rated.\n\n"
        "{about}"
        "The viewer rated {i0}{i0_genres} {r00}, and {peer}{peer_about} rated it {r10}. "
        "{peer} rated {i1}{i1_genres} {r11}.\n\n"
        "What did the viewer rate {i1}? First reason step by step, one short statement a line, "
        "each building only on the ones before it. Then answer with a single line of this form:\n"
        "Rating: a number from 1 to 5"
    ),
    hops=(
        "The viewer rated {i0}{i0_genres} {r00}.",
        "The same film got a {r10} from {peer}.",
        "Going on from there, {peer} rated {i1}{i1_genres} {r11}.",
        "The viewer's own rating of that film is {r01}.",
    ),
    like_hop="The viewer liked {title}{genres}.",
    taste_like="{title} [{genre}]",
    taste="Recently the viewer liked {likes}, so {genre} should fit best.",
    taste_unknown="What is closest to the recently liked films should fit best.",
    rating_hops=(
        "The viewer rated {i0}{i0_genres} {r00}.",
        "The same film got a {r10} from {peer}, so {agreement}.",
        "Going on from there, {peer} rated {i1}{i1_genres} {r11}.",
    ),
    agreement=(
        "the two agree on it",
        "the two nearly agree on it",
        "the two differ clearly on it",
    ),
    expectation=(
        "Weighing this, the viewer should like {i1} less than {peer} did.",
        "Weighing this, the viewer should like {i1} as much as {peer} did.",
        "Weighing this, the viewer should like {i1} more than {peer} did.",
    ),
)

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
    chain="Kai {r00} {i0} {r10} {peer} {r11} {i1} {r01} Kai",
    chains="{chains}\n",
    peer_about="",
    candidate={"titles": "{title}", "numbers": "{number} {title}"},
    candidate_joiner=", ",
    candidates="Candidates: {candidates}.\n",
    request=dict.fromkeys(ANSWERS, "Rank the best {places}."),
    question="{about}Kai {r00} {i0} {r10} {peer} {r11} {i1}{i1_genres}.\nKai gave it what?",
    hops=(
        "Kai gave {i0} a {r00}.",
        "{peer} gave it a {r10}.",
        "{peer} gave {i1} a {r11}{i1_genres}.",
        "Kai gave it a {r01}.",
    ),
    like_hop="Kai is fond of {title}{genres}.",
    taste_like="{title}",
    taste="Kai: the favourites {likes} are mostly {genre}.",
    taste_unknown="Kai is fond of more like it.",
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
)

WORDINGS = {"movies": MOVIES, "compact": COMPACT}
