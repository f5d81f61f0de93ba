"""Re-scoring: detections are ranked by score and category frequency jointly (the paper, section 5).

The rule of the paper: a rare detection goes before a frequent one if ``score_rare + alpha > score_frequent``, with
alpha 0.1 for rare and 0.05 for common categories. That is an order by

    rank score = score + alpha(frequency group of the category),   alpha(frequent) = 0,

where among equal rank scores the one with the higher score, hence the more frequent category, goes first (the rule's
inequality is strict). The evaluator and the test server keep the 300 highest written scores of an image, so the rank
score is what decides the cap and what is written.

Within a category a constant is added, so its order never changes, and neither does its AP where the cap does not bind.
(float32 has limits: next to alpha = 0.1, scores that differ by less than 7e-9 become equal, never reversed.)

Symbols: k detections of one image; r, c, f frequency letters of LVIS.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline_steps.recipe.testing import RescoringAlpha


def alpha_by_category(category_ids: Iterable[int], frequencies: Iterable[str], alpha: RescoringAlpha) -> np.ndarray:
    """What is added to the scores of each category.

    Args:
        category_ids: ids of the data set's categories, C of them.
        frequencies: their letters ``r``, ``c`` or ``f``, in the same order.
        alpha: addends of the groups.

    Returns:
        float64[largest id + 1], indexed by category id; NaN where the data set has no category.
    """
    of_letter = {"r": alpha.rare, "c": alpha.common, "f": alpha.frequent}
    ids = np.fromiter(category_ids, np.int64)
    table = np.full(ids.max(initial=-1) + 1, np.nan)
    table[ids] = [of_letter[str(letter)] for letter in frequencies]
    return table


def rank_scores(scores: np.ndarray, category_ids: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Rank scores of detections: score + alpha of their category, rounded once to float32.

    Args:
        scores: float32[k].
        category_ids: int[k].
        alphas: :func:`alpha_by_category`.

    Returns:
        float32[k], in the order of the input.
    """
    return (np.asarray(scores, np.float64) + alphas[category_ids]).astype(np.float32)


def keep_top(scores: np.ndarray, ranks: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` detections of one image that are kept, best first.

    By rank score descending, then by score descending, then by position.

    Args:
        scores: float[k].
        ranks: float[k], rank scores.
        count: the cap.

    Returns:
        int64[min(k, count)].
    """
    return np.lexsort((-scores, -ranks))[:count]
