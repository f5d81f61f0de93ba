"""The one list of checks of annotation files: whether training or evaluation refuses a file where one fails, or
leaves the annotation out; ``check_dataset`` lists all findings.

What evaluation does not refuse it takes as the official evaluator does: a box or mask without a pixel is an object that
no detection can match.
"""

from __future__ import annotations

from pipeline_steps.data.checks.findings import LEFT_OUT, REFUSED, Check

# ---- structure ------------------------------------------------------------------------------------------------------

UNKNOWN_LETTER = Check("frequency is not r, c or f", REFUSED, REFUSED)
NO_LETTER = Check("category without frequency (the evaluator groups by it)", "", REFUSED)
LETTER_FROM_COUNT = Check("category without frequency (its image_count decides)", harmless=True)
NO_LETTER_NOR_COUNT = Check("category without frequency and image_count", REFUSED, REFUSED)
REPEATED_CATEGORY = Check("duplicate category id", REFUSED, REFUSED)
REPEATED_IMAGE = Check("duplicate image id", REFUSED, REFUSED)
REPEATED_ANNOTATION = Check("duplicate annotation id", REFUSED, REFUSED)
ANNOTATION_ID_0 = Check("annotation id 0 (evaluators take 0 for no match: count from 1)", "", REFUSED)
UNKNOWN_IMAGE = Check("annotation of an unknown image", REFUSED, REFUSED)
UNKNOWN_CATEGORY = Check("annotation of an unknown category", REFUSED, REFUSED)
CROWD_IN_LVIS = Check("iscrowd in LVIS (COCO files: --format coco)", LEFT_OUT, REFUSED)
IGNORE_IN_LVIS = Check("ignore in LVIS (COCO files: --format coco)", "", REFUSED)
NO_TRAIN_IMAGE = Check("category without any train image", REFUSED)
NO_ANNOTATIONS = Check("the file has no list of annotations", REFUSED, REFUSED)
NOTHING_USABLE = Check("no annotation that can be learned from", REFUSED)
TOO_MANY_UNUSABLE = Check("more annotations than training may leave out by default", REFUSED)
NO_PLACE = Check("image whose file cannot be found from coco_url and file_name", REFUSED)
NO_IMAGES = Check("the file has no images", REFUSED, REFUSED)


def lacking(key: str) -> Check:
    """An image of LVIS without a list that says what was judged in it."""
    return Check(f"image without {key}", REFUSED if key == "neg_category_ids" else "", REFUSED)


def unknown_in(key: str) -> Check:
    """A list of an image that names a category which the file does not have."""
    return Check(f"{key} names an unknown category", REFUSED, REFUSED)


def malformed(what: str) -> Check:
    """A record of another structure than the format's."""
    return Check(f"{what} of another structure", REFUSED, REFUSED)


# ---- boxes ----------------------------------------------------------------------------------------------------------

NEGATIVE_BOX = Check("box of negative width or height", LEFT_OUT, REFUSED)
NO_EXTENT = Check("box without extent", LEFT_OUT)
TINY_BOX = Check("box of less than 0.01 pixels", LEFT_OUT)
BOX_BEYOND = Check("box entirely outside its image", LEFT_OUT)
BOX_OUTSIDE = Check("box outside its image")
BOXES = (None, NEGATIVE_BOX, NO_EXTENT, TINY_BOX, BOX_BEYOND, BOX_OUTSIDE)
"""By the codes of ``geometry.check_boxes``."""

NO_AREA = Check("annotation without area", "", REFUSED)
AREA_0 = Check("area is 0", harmless=True)
AREA_TOO_LARGE = Check("area is more than twice that of the box (AP by size would be wrong)", "", REFUSED)

# ---- masks ----------------------------------------------------------------------------------------------------------

MASK_ON_BOX_ONLY = Check("segmentation on a box_only image")
NO_MASK = Check("annotation without segmentation (it evaluates with --iou-type bbox)", LEFT_OUT, REFUSED)
MALFORMED_MASK = Check("segmentation is neither polygons nor RLE", LEFT_OUT, REFUSED)
EMPTY_LIST = Check("empty segmentation", LEFT_OUT, REFUSED)
SHORT_POLYGON = Check("polygon of less than three points or an odd number of coordinates", LEFT_OUT, REFUSED)
FAR_POLYGON = Check("polygon further from its image than the image is large", LEFT_OUT, REFUSED)
POLYGON_BEYOND = Check("polygon entirely outside its image", LEFT_OUT)
FLAT_POLYGON = Check("polygon encloses nothing", LEFT_OUT)
RLE_SIZE = Check("RLE of another size than its image", LEFT_OUT, REFUSED)
MALFORMED_RLE = Check("RLE counts are malformed", LEFT_OUT, REFUSED)
RLE_TOTAL = Check("RLE counts do not add up to the image", LEFT_OUT, REFUSED)
EMPTY_RLE = Check("RLE mask without a pixel", LEFT_OUT)
POLYGON_OUTSIDE = Check("polygon outside its image", harmless=True)
POLYGON_UNLIKE_BOX = Check("polygon does not fill its box", harmless=True)
MASKS = (
    None, MASK_ON_BOX_ONLY, NO_MASK, MALFORMED_MASK, EMPTY_LIST, SHORT_POLYGON, FAR_POLYGON, POLYGON_BEYOND,
    FLAT_POLYGON, RLE_SIZE, MALFORMED_RLE, RLE_TOTAL, EMPTY_RLE, POLYGON_OUTSIDE, POLYGON_UNLIKE_BOX,
)  # fmt: skip
"""By the codes of ``masks.read_masks``."""
