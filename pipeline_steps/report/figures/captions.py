"""Titles and captions of all figures; imports nothing, because the workflow reads them too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """What stands above and below a figure."""

    title: str
    text: str
    """What to see in it."""


CAPTIONS = {
    "ap_by_group": Caption(
        "AP by frequency group",
        "Mask or box AP of every model on val. The short black lines are AP_fixed: where a line stands well above or "
        "below its bar, the bar owes something to how categories share the places under the cap per image rather than "
        "to better scores.",
    ),
    "ap_by_category": Caption(
        "AP and number of train images",
        "One point for each category with ground truth on val. Rare categories have few objects on val, so their "
        "points scatter widely.",
    ),
    "scores": Caption(
        "Scores by frequency group",
        "The models' scores, before re-scoring, of the ensemble's detections on val that count: right ones (IoU of at "
        "least 0.5 with an object of the category) and wrong ones. Compare the medians of the right ones between the "
        "groups: re-scoring is meant to make up for their distance. Both axes are logarithmic.",
    ),
    "precision_recall": Caption(
        "Precision and recall",
        "Precision over recall at IoU 0.5, the mean over the categories of a group. A curve that falls early is "
        "limited by wrong detections, one that ends early by objects that are never found.",
    ),
    "rescoring": Caption(
        "Re-scoring: where the gain comes from",
        "The ensemble's detections on val ranked anew. Left: AP against alpha, which is added to the scores of rare "
        "categories (half of it to common ones); the grey line is the recipe's alpha. AP_fixed cannot change: within a "
        "category the order stays. Right: overall (grey), rare (red) and frequent (blue) AP against the cap per image; "
        "the grey line is the recipe's cap. Where the cap does not bind, re-scoring does nothing. The table holds only "
        "what was kept per image under the recipe's alpha.",
    ),
    "long_tail": Caption(
        "The long tail of the training data",
        "Train images of each category, sorted by their number in LVIS, which decides what is rare, common or "
        "frequent. Black: with the chosen OpenImages images, for categories that both data sets share.",
    ),
    "training": Caption(
        "Training curves",
        "Losses of every training over the images seen, as means between two reports. Box-classification losses of "
        "different loss functions cannot be compared with each other.",
    ),
}
"""By file name without suffix, in the order in which they are drawn."""
