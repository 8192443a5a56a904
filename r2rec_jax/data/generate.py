"""The bundled data set: a generated rating log with tastes, popularity, times and demographics.

The generative model, in the order of the draws:

- Catalogue (depends on `catalog_seed` only): one-word titles, a year in 1970..2009, and exactly one of
  eight genres per item, each genre equally often. The order is shuffled, so an item's index carries no
  information. Popularity is Zipf-like (weight 1 / rank^0.6). An item's quality shifts its ratings by about
  .3.
- Users (from `seed`): gender, age band and occupation; a main genre that depends weakly on these; a
  second genre. A pick has the main genre with probability .65, the second with .20, else any other
  genre. Within a genre, items are picked by popularity, without repetition.
- Ratings: 1..5, around 4.5 in the main genre, 4.2 in the second, 2.4 elsewhere, plus the item's
  quality and noise. The last item rated above 3 is therefore usually of the main genre.
- Times: each user starts at a random time within three years, with gaps of about five days, so
  users interleave. Seconds, strictly increasing within a user.

Two logs with the same `catalog_seed` and different `seed` share all items and no user.
"""

import numpy as np

from r2rec_jax.data.generated_titles import TITLES
from r2rec_jax.data.interactions import Catalog, Interactions
from r2rec_jax.runtime.errors import UserError

GENRES = ("drama", "comedy", "thriller", "romance", "western", "horror", "fantasy", "musical")
GENDERS = ("female", "male")
AGES = ("under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+")
OCCUPATIONS = ("artist", "doctor", "farmer", "lawyer", "programmer", "scientist", "writer")

MAIN_SHARE, SECOND_SHARE = 0.65, 0.20
MAIN_RATING, SECOND_RATING, OTHER_RATING = 4.5, 4.2, 2.4
DAY = 86_400
START = 946_684_800  # 2000-01-01, UTC


def generate(
    *,
    catalog_seed: int = 0,
    seed: int = 0,
    users: int = 1600,
    items: int = 200,
    ratings_per_user: int = 15,
) -> tuple[Interactions, Catalog]:
    """Generates a log of `users` users with `ratings_per_user` ratings each on average.

    Raises:
      UserError: more items than titles, or more ratings per user than items.
    """
    fewest, most = _rating_counts(ratings_per_user)
    if not len(GENRES) <= items <= len(TITLES):
        raise UserError(f"items={items}: the generator makes {len(GENRES)} to {len(TITLES)} items")
    if users < 1 or not 1 <= fewest <= most <= items:
        raise UserError(
            f"users={users}, ratings_per_user={ratings_per_user}: need at least one of each, and "
            f"the most active user's {most} ratings must not exceed items={items}"
        )
    # The second number keeps the two streams apart when the seeds are equal.
    catalog_rng = np.random.default_rng([catalog_seed, 0])
    user_rng = np.random.default_rng([seed, 1])

    title = [TITLES[k] for k in catalog_rng.permutation(len(TITLES))[:items]]
    year = catalog_rng.integers(1970, 2010, items).astype(np.int32)
    genre = catalog_rng.permutation(np.arange(items) % len(GENRES))
    popularity = (1.0 + catalog_rng.permutation(items)) ** -0.6
    quality = catalog_rng.normal(0.0, 0.3, items)
    leanings = [catalog_rng.normal(0.0, 0.5, (len(v), len(GENRES))) for v in _DEMOGRAPHICS.values()]

    traits = [user_rng.integers(len(v), size=users) for v in _DEMOGRAPHICS.values()]
    lean = sum(table[trait] for table, trait in zip(leanings, traits, strict=True))
    main = _draw(user_rng, lean)
    second = (main + user_rng.integers(1, len(GENRES), users)) % len(GENRES)
    counts = user_rng.integers(fewest, most + 1, users)

    picked = _pick_items(user_rng, _tastes(main, second), genre, popularity, most)
    level = np.full((users, len(GENRES)), OTHER_RATING)
    level[np.arange(users), second] = SECOND_RATING
    level[np.arange(users), main] = MAIN_RATING
    score = np.take_along_axis(level, genre[picked], axis=1) + quality[picked]
    rating = np.clip(np.rint(score + user_rng.normal(0.0, 0.5, picked.shape)), 1, 5)
    first = START + user_rng.integers(0, 3 * 365 * DAY, (users, 1))
    time = first + np.cumsum(1 + user_rng.exponential(5 * DAY, picked.shape).astype(np.int64), 1)

    kept = np.arange(most) < counts[:, None]
    user = np.broadcast_to(np.arange(users)[:, None], kept.shape)
    log = (user[kept], picked[kept], rating[kept], time[kept])
    demographics = [
        {name: _DEMOGRAPHICS[name][k] for name, k in zip(_DEMOGRAPHICS, row, strict=True)}
        for row in zip(*traits, strict=True)
    ]
    catalog = Catalog(title, year, [(GENRES[g],) for g in genre], demographics)
    return Interactions.from_log(*log, users, items), catalog


_DEMOGRAPHICS = {"gender": GENDERS, "age": AGES, "occupation": OCCUPATIONS}


def _rating_counts(mean: int) -> tuple[int, int]:
    """Bounds of the uniform number of ratings per user, e.g. (8, 22) for a mean of 15."""
    fewest = (mean + 1) // 2
    return fewest, 2 * mean - fewest


def _draw(rng: np.random.Generator, log_weight: np.ndarray) -> np.ndarray:
    """One draw per row with probability proportional to exp(log_weight) (Gumbel-max): int[rows]."""
    return np.argmax(log_weight + rng.gumbel(size=log_weight.shape), axis=1)


def _tastes(main: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Probability of each genre for a pick: float64[users, genres]."""
    users = np.arange(len(main))
    other = (1 - MAIN_SHARE - SECOND_SHARE) / (len(GENRES) - 2)
    taste = np.full((len(main), len(GENRES)), other)
    taste[users, main] = MAIN_SHARE
    taste[users, second] = SECOND_SHARE
    return taste


def _pick_items(
    rng: np.random.Generator,
    taste: np.ndarray,
    genre: np.ndarray,
    popularity: np.ndarray,
    picks: int,
) -> np.ndarray:
    """Draws a genre by taste, then one of its unpicked items by popularity: int[users, picks]."""
    users, is_genre = len(taste), np.eye(len(GENRES))[genre]  # [items, genres]
    unseen = np.ones((users, len(genre)))
    picked = np.empty((users, picks), np.int64)
    for step in range(picks):
        # The unpicked items of a genre share the genre's probability. An exhausted genre gets none.
        weight = unseen * popularity
        left = np.maximum(weight @ is_genre, np.finfo(float).tiny)
        weight *= (taste / left)[:, genre]
        with np.errstate(divide="ignore"):
            picked[:, step] = _draw(rng, np.log(weight))
        unseen[np.arange(users), picked[:, step]] = 0.0
    return picked
