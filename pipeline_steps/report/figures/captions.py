"""Titles and captions of all figures; imports nothing, because the workflow reads them too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """What stands above and below a figure."""

    title: str
    text: str  # what to see in it


CAPTIONS = {
    "ap_by_group": Caption(
        "AP by frequency group",
        "Mask or box AP of every model on val. The short black lines are AP_fixed: where a line is well above or "
        "below its bar, part of the bar comes from how categories share the limit per image, not from better scores.",
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
        "groups: re-scoring is meant to close the gap between them. Both axes are logarithmic.",
    ),
    "precision_recall": Caption(
        "Precision and recall",
        "Precision over recall at IoU 0.5, the mean over the categories of a group; where a category does not reach a "
        "recall, its precision counts as 0. A curve falls both where wrong detections rank high and where objects "
        "are never found; its height at the right end is at most the share of categories in which every object is "
        "found.",
    ),
    "rescoring": Caption(
        "Re-scoring: where the gain comes from",
        "The ensemble's detections on val, ranked again. Left: AP against alpha, which is added to the scores of each "
        "frequency group, from zero to three times the recipe's; the grey line is the recipe's alpha. AP_fixed "
        "cannot change: the order within a category stays. Right: overall (grey), rare (red, triangles) and frequent "
        "(blue) AP against the limit per image; the grey line is the recipe's. Where the limit is not reached, "
        "re-scoring does nothing. The table has only what was kept per image under the recipe's alpha.",
    ),
    "ensemble_gain": Caption(
        "What each member contributes",
        "Box AP of the merged boxes on val, with the recipe's fusion, re-scoring and limits. Left: the members "
        "in the recipe's order, each added to those before it. Right: what is lost when one member is left out "
        "(a bar to the left: the ensemble is better without it). An expert can only help in the categories that its "
        "data set shares with LVIS.",
    ),
    "samples": Caption(
        "Valid samples with and without the equalization loss",
        "As figure 1 of the paper: a sample is a proposal and a category, and valid if it has a weight in the "
        "classification loss. Proposals are those that training would draw from the trained network. Left: number of "
        "valid samples of each category, most frequent categories first; right: negatives divided by positives. Where "
        "the grey points rise above the red ones, the equalization loss removes the negatives from objects of other "
        "categories: for rare and common categories, except in images in which they are known to be present or absent."
        " Background proposals stay negatives for all. Grey has two levels because "
        "box-only images say nothing of categories outside the vocabulary of OpenImages. The table below gives sums "
        "over each group.",
    ),
    "long_tail": Caption(
        "The long tail of the training data",
        "Train images of each category, sorted by their number in LVIS, which decides what is rare, common or "
        "frequent. Black: with the chosen OpenImages images, for categories that both data sets share.",
    ),
    "training": Caption(
        "Training curves",
        "Losses of every training over the images seen, averaged between two log entries. Box-classification losses of "
        "different loss functions cannot be compared.",
    ),
}
"""By file name without suffix, in the order in which they are drawn."""


class CaptionTexts(dict[str, str]):
    """The captions by figure, for Snakemake's report, which also lists them as a parameter of the job: in short."""

    def __init__(self) -> None:
        super().__init__({name: caption.text for name, caption in CAPTIONS.items()})

    def __repr__(self) -> str:
        return "see the figures"
