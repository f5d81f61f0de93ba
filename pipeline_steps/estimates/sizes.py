"""Sizes of images, numbers of images and categories of a recipe, as far as they are known without its data.

Pixels of an image are those of a 4:3 one, padded to multiples of 32 as the pyramid needs it.
"""

from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.recipe.testing import Testing
from pipeline_steps.recipe.training import Augmentation, Model

DIVISOR = 32
ASPECT = 4 / 3
STEPS = 32
"""Shorter edges that a range is replaced by."""

SPLITS = {"v0.5": {"val": 5_000, "test": 20_000}, "v1": {"val": 19_809, "test": 19_822}}
"""Images of the LVIS splits (v1: val and test-dev)."""
CATEGORIES = {"v0.5": 1_230, "v1": 1_203}
COCO_CATEGORIES = 80
OPENIMAGES_CLASSES = 601

Size = tuple[int, int]
"""Height and width."""


def split_images(recipe: Recipe) -> dict[str, int]:
    """Images of val and test."""
    mini = recipe.data.mini
    if recipe.data.source == "mini":
        return {"val": mini.val_images, "test": mini.test_images}
    return SPLITS[recipe.lvis_version]


def category_count(recipe: Recipe, model: Model) -> int:
    """C, the foreground categories of a model; for OpenImages' own classes as if all of them had boxes."""
    mini = recipe.data.mini
    if model.datasets == ["coco_train"]:
        return mini.coco_matching + mini.coco_only if recipe.data.source == "mini" else COCO_CATEGORIES
    if model.datasets == ["openimages_own_train"] and recipe.data.source != "mini":
        return OPENIMAGES_CLASSES
    return mini.shapes * mini.hues if recipe.data.source == "mini" else CATEGORIES[recipe.lvis_version]


def padded(edge: float) -> int:
    """An edge in whole multiples of 32."""
    return -(-round(edge) // DIVISOR) * DIVISOR


def fitted(shorter: float, longer: int) -> Size:
    """Padded size of a 4:3 image resized to a shorter edge, the longer one being at most ``longer``."""
    shorter = min(shorter, longer / ASPECT)
    return padded(shorter), padded(shorter * ASPECT)


def largest(shorter: int, longer: int) -> Size:
    """The largest padded image that the two limits allow, whatever its aspect: a square one if they are equal."""
    return padded(min(shorter, longer)), padded(longer)


def area(size: Size) -> int:
    """Pixels."""
    return size[0] * size[1]


def training_sizes(augmentation: Augmentation) -> list[Size]:
    """Padded sizes that a 4:3 image is drawn from, equally likely, ascending."""
    edges: list[float] = sorted(augmentation.shorter_edge)
    if augmentation.shorter_edge_sampling == "range":
        low, high = edges[0], edges[-1]
        edges = [low + (high - low) * (step + 0.5) / STEPS for step in range(STEPS)]
    return [fitted(edge, augmentation.longer_edge) for edge in edges]


def training_pixels(augmentation: Augmentation, images: int) -> float:
    """Mean pixels of an image of a batch of ``images`` images, padded to the largest of them.

    Each image draws its size by itself: the largest of ``images`` draws is at most the k-th of n sizes with
    probability (k / n)^images.
    """
    sizes = training_sizes(augmentation)
    count = len(sizes)
    return sum(
        area(size) * ((rank / count) ** images - ((rank - 1) / count) ** images)
        for rank, size in enumerate(sizes, start=1)
    )


def test_sizes(scales: list[int], testing: Testing) -> list[Size]:
    """Padded sizes at which a 4:3 image is looked at; equal ones and mirrored ones count as :mod:`inference` does."""
    sizes = dict.fromkeys(fitted(scale, testing.longer_edge) for scale in scales)
    return [size for size in sizes for _ in range(1 + testing.horizontal_flip)]
