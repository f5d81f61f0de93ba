"""Configuration keys of training: losses, sampling, augmentation, schedule, checkpoints, and the models to train."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline_steps.recipe.base import PathText, Section

Precision = Literal["fp32", "bf16", "fp16"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_]*$"
Name = Field(pattern=NAME)


class CocoIgnore(Section):
    """COCO Ignore (paper, section 3.1): unannotated objects that COCO knows are pushed down less."""

    enabled: bool = False
    """Whether background proposals that overlap a COCO box get a lower weight."""
    iou: float = Field(0.5, gt=0, lt=1)
    """Applies to background proposals whose IoU with a COCO box exceeds this."""
    beta: float = Field(0.5, ge=0, le=1)
    """Weight of such a proposal in the classification loss (paper: 0.5)."""


class Schedule(Section):
    """Learning rate and length, counted in images so that they do not depend on the batch size."""

    images: int = Field(1440000, ge=1)
    """Images to train on (ours: 90,000 iterations of 16, the detectron2 1x schedule)."""
    warmup_images: int = Field(16000, ge=0)
    """Images over which the learning rate rises linearly from 0; 0 for no warm-up."""
    warmup_iterations_min: int = Field(1000, ge=0)
    """The warm-up takes at least this many iterations, however large the batch (detectron2's length; with 16 images per
    batch it is ``warmup_images``)."""
    decay: Literal["steps", "cosine"] = "steps"
    """``steps``: times 0.1 at each of ``decay_at``; ``cosine``: half a cosine down to 0."""
    decay_at: list[float] = [0.6667, 0.8889]
    """Fractions of ``images`` at which a stepped schedule decays."""
    learning_rate: float = Field(0.02, gt=0)
    """Learning rate for a batch of ``reference_batch`` images; scaled linearly to ``images_per_batch``. Published for
    Mask R-CNN with SGD and a warm-up: 16 images with 0.02 to 64 with 0.08 (detectron2's baselines of 2021: 0.1). Larger
    batches are unproven; the mini recipe trains with 8."""
    reference_batch: int = Field(16, ge=1)
    """The batch size that ``learning_rate`` was stated for."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD momentum."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of weights with two or more dimensions."""
    weight_decay_norm: float = Field(0.0, ge=0)
    """Weight decay of normalisation layers."""
    weight_decay_bias: float = Field(1e-4, ge=0)
    """Weight decay of biases."""
    clip_gradient_norm: float = Field(0.0, ge=0)
    """Clip the total gradient norm to this; 0 does not clip."""


class Augmentation(Section):
    """Training-time image sizes and flips."""

    shorter_edge: list[int] = [800]
    """Shorter edge in pixels: one value, a list to choose from, or with ``shorter_edge_sampling: range`` two bounds."""
    shorter_edge_sampling: Literal["choice", "range"] = "choice"
    """How ``shorter_edge`` is read."""
    longer_edge: int = Field(1333, ge=32)
    """The longer edge is at most this."""
    horizontal_flip: bool = True
    """Flip half of the images."""


class Training(Section):
    """Everything that decides the weights that come out of a training. Each model may override any key."""

    loss: Literal["softmax", "sigmoid", "eql"] = "eql"
    """Box classification loss (paper, section 2)."""
    prior_probability: float = Field(0.001, gt=0, lt=1)
    """Initial foreground probability of sigmoid heads: bias = -log((1 - p) / p) (ours)."""
    judged_categories: bool = True
    """EQL: keep the loss of rare and common categories in S_P and S_N of the image (equation 4)."""
    coco_ignore: CocoIgnore = CocoIgnore()
    """COCO Ignore."""
    ignore_group_boxes: bool = True
    """Background proposals that lie for more than half of their area in a group-of box of OpenImages or a crowd of COCO
    get no classification loss (ours; detectron2 learns crowds as background)."""
    ignore_unknown_categories: bool = True
    """OpenImages: no loss on categories of which an image says nothing, background proposals included (ours): LVIS
    categories that OpenImages has no name for, and for ``openimages_own_train`` classes that are neither boxed in the
    image nor verified to be absent from it."""
    box_head_loss_scale: float = Field(1.0, gt=0)
    """Factor on the box-head losses (classification and box regression); 2 with COCO Ignore in the paper."""
    repeat_factor_threshold: float = Field(0.0, ge=0)
    """Repeat-factor sampling threshold t; 0 samples every image once (paper's RS: 0.001)."""
    images_per_batch: int = Field(16, ge=1)
    """Total batch size over all GPUs, whose number must divide it: 16 for up to 16 GPUs, 32 and 64 for as many.
    Per-GPU batch, accumulation and learning rate are derived."""
    max_images_per_gpu: int = Field(2, ge=1)
    """Images that fit on one GPU at once; the rest of the batch is accumulated. Accumulated parts have batch statistics
    of their own and average the mask loss over their own objects; nothing else depends on it."""
    schedule: Schedule = Schedule()
    """Learning rate and length."""
    augmentation: Augmentation = Augmentation()
    """Image sizes and flips."""
    mask_format: Literal["polygon", "bitmask"] = "polygon"
    """How masks are stored during augmentation; ``bitmask`` also reads RLE."""
    precision: Precision = "fp32"
    """Autocast precision; fp16 uses a gradient scaler."""
    channels_last: bool = False
    """Memory format of the convolutions."""
    compile_backbone: bool = False
    """torch.compile the backbone."""
    activation_checkpointing: bool = False
    """Recompute backbone activations in the backward pass: less memory, more time. For GPUs below 24 GB;
    `pipeline_steps.estimate` says what a recipe needs."""
    aspect_grouping: bool = True
    """Batches hold images of one orientation: less padding."""
    checkpoint_images: int = Field(80000, ge=1)
    """Images between checkpoints."""
    log_images: int = Field(320, ge=1)
    """Images between progress lines."""
    tracker: Literal["none", "wandb", "mlflow"] = "none"
    """Also report to Weights & Biases or MLflow, if the package is installed; TensorBoard events are always written."""
    loader_workers: int = Field(4, ge=0)
    """Data loading processes per GPU; 0 loads in the training process."""
    record_gradients: int = Field(0, ge=0)
    """Record what the classification loss does to each category, summed over this many windows of the training, in
    ``gradients.csv`` beside the model: encouraging and discouraging gradient, valid positive and negative samples.
    0 records nothing."""
    detector_options: list[str] = []
    """Further ``KEY VALUE`` pairs for the detectron2 configuration."""


class Model(Section):
    """One detector to train."""

    name: str = Name
    """Name of the model: its folder below results and its ensemble member name."""
    detector: PathText
    """detectron2 yacs file, e.g. ``config/detectors/r50_fpn.yaml``."""
    datasets: list[Literal["lvis_train", "coco_train", "openimages_train", "openimages_own_train"]] = ["lvis_train"]
    """Data sets that are concatenated for training. ``openimages_train``: boxes of LVIS categories on the images that
    ``data.openimages`` chooses; ``openimages_own_train``: OpenImages' own classes, ``data.openimages_own``;
    ``coco_train``: COCO's categories, without the images that LVIS tests on. The last two stand alone."""
    init: str = ""
    """Initial weights: the name of a model of ``pretraining``, of converted weights (``weights``), or empty."""
    seed: int | None = None
    """Seed of this training; the recipe's seed if not given."""
    seeds: list[int] = []
    """Replicates: the entry stands for one model per seed, called ``<name>_s<seed>``, each with that seed. With a
    replicated ``init`` each starts from the pre-training of its own seed, so that runs of one seed are fair pairs."""
    replicate_of: str = ""
    """Name of the entry that this model is a replicate of; set where ``seeds`` is expanded."""
    training: dict[str, object] = {}
    """Overrides of keys of ``training`` for this model; nested keys merge."""


class Expert(Model):
    """A detector trained on another data set whose detections of shared categories join the ensemble."""

    category_table: Literal["coco", "openimages"]
    """Table that maps its categories to LVIS: ``coco`` for an expert that is trained on ``coco_train``, ``openimages``
    for one that is trained on ``openimages_own_train``."""

    @model_validator(mode="after")
    def _trained_on_its_table(self) -> Self:
        wanted = {"coco": "coco_train", "openimages": "openimages_own_train"}[self.category_table]
        if self.datasets != [wanted]:
            raise ValueError(
                f"{self.name}: category_table {self.category_table!r} maps the categories of {wanted}, but the expert "
                f"is trained on {', '.join(self.datasets) or 'nothing'}: set datasets to [{wanted}]"
            )
        return self


class Weights(Section):
    """Public pre-trained backbone weights that ``convert_weights`` turns into detectron2 names."""

    name: str = Name
    """Name by which ``init`` refers to them."""
    file: PathText
    """File as downloaded; ``{datasets_root}`` is replaced."""
    layout: Literal["torchvision_resnet", "torchvision_resnext", "timm_senet154"]
    """Naming scheme of the file."""
    sha256: str = Field("", pattern="^[0-9a-f]{0,64}$")
    """First digits of the file's SHA-256, as published in its name."""
