"""Configuration keys of testing, ensembling, evaluation, report and compute resources."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline_steps.recipe.base import Section
from pipeline_steps.recipe.training import Precision


class KeepPerImage(Section):
    """Detections kept per image of the merged, re-scored boxes. Masks are predicted for these."""

    val: int = Field(1000, ge=1)
    """For val: more than the evaluator counts for AP, because AP_fixed has no cap per image. AP is that of the 300 that
    would be kept for the test server."""
    test: int = Field(300, ge=1)
    """For test: the server reads 300."""


class Testing(Section):
    """Multi-scale test inference (paper, section 5)."""

    box_scales: list[int] = [600, 800, 1000, 1200, 1400]
    """Shorter edges for box testing, in pixels."""
    mask_scales: list[int] = [600, 800, 1000, 1200, 1400]
    """Shorter edges for mask testing, in pixels."""
    longer_edge: int = Field(4000, ge=32)
    """The longer edge is at most this at every scale (ours: the paper limits it in training only). It bounds the
    memory for panoramas: an image up to 2.85 times as long as high is seen at 1400 in full. Scales that become equal
    are computed and counted once."""
    horizontal_flip: bool = False
    """Add the mirrored image at every scale."""
    score_threshold: float = Field(0.0, ge=0, lt=1)
    """Detections must score above this (paper: 0.0)."""
    nms_iou: float = Field(0.5, gt=0, le=1)
    """IoU threshold of the per-category NMS within a scale and across scales."""
    scale_fusion: Literal["nms", "wbf"] = "nms"
    """Merge of the scales' boxes: NMS (detectron2's test-time augmentation), or weighted-box fusion (ours)."""
    proposals: int = Field(1000, ge=1)
    """RPN proposals per image and scale."""
    keep_per_image: int = Field(1000, ge=1)
    """Detections of a model or expert kept per image, on val and test alike: more than are evaluated, because
    re-scoring lifts rare ones over the cap that is applied after merging (``ensemble.keep_per_image``)."""
    mask_models: list[str] = []
    """Models whose soft masks are averaged for the merged boxes; empty: all of ``models``."""
    shards: int = Field(32, ge=1, le=512)
    """Jobs that share the images of one split and model. Results do not depend on it."""
    precision: Literal["as_trained"] | Precision = "as_trained"
    """Autocast precision of inference; ``as_trained``: of each model, that of its training (ours)."""
    batch_images: int = Field(1, ge=1)
    """Images of equal size that go through the network together. The grouping does not depend on the number of shards;
    another value can change results by rounding."""

    @field_validator("keep_per_image", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            given = ", ".join(f"{split}: {count}" for split, count in value.items())
            raise ValueError(
                "one number for both splits, what each member keeps before merging, e.g. 1000; what is kept of the "
                f"merged detections is ensemble: {{keep_per_image: {{{given}}}}}"
            )
        return value


class Member(Section):
    """One member of the ensemble."""

    name: str
    """Name of a model or an expert."""
    weight: float = Field(1.0, gt=0)
    """Weight of its scores."""


class RescoringAlpha(Section):
    """Re-scoring (paper, section 5): rank score = score + alpha of the category's frequency group."""

    rare: float = Field(0.1, ge=0)
    """Added for rare categories."""
    common: float = Field(0.05, ge=0)
    """Added for common categories."""
    frequent: float = Field(0.0, ge=0)
    """Added for frequent categories."""


class Ensemble(Section):
    """How the members' boxes are merged, per category."""

    members: list[Member]
    """Models and experts that take part."""
    fusion: Literal["nms", "wbf", "soft_nms"] = "nms"
    """Non-maximum suppression (paper), weighted-box fusion, or soft-NMS."""
    iou: float = Field(0.5, gt=0, le=1)
    """IoU above which boxes of one category are merged."""
    soft_nms_sigma: float = Field(0.5, gt=0)
    """Gaussian width of soft-NMS."""
    alpha: RescoringAlpha = RescoringAlpha()
    """Re-scoring."""
    keep_per_image: KeepPerImage = KeepPerImage()
    """Detections kept per image after re-scoring."""


class Variant(Section):
    """Another way of testing and merging the same models on val, for a row of a table. It trains nothing."""

    testing: dict[str, object] = {}
    """Overrides of keys of ``testing``; nested keys merge, lists are replaced."""
    ensemble: dict[str, object] = {}
    """Overrides of keys of ``ensemble`` in the same way. A single member is that model alone."""


class Evaluation(Section):
    """LVIS evaluation on val."""

    evaluator: Literal["compiled", "official"] = "compiled"
    """Who computes AP and AP_fixed: our compiled matching, or the lvis package (for COCO pycocotools): the same
    result to the last bit, in much more time and memory."""
    max_detections: int = Field(300, ge=1)
    """Detections per image that count for AP (LVIS: 300)."""
    fixed_per_category: int = Field(10000, ge=1)
    """Detections per category over the data set that count for AP_fixed."""
    fixed_sizes: bool = True
    """Also AP50, AP75 and AP by size under the rule of AP_fixed."""
    recall: bool = True
    """Also AR by size, by frequency group and by category (LVIS: AR@300)."""
    boundary_ratio: float = Field(0.02, ge=0, lt=1)
    """Also boundary AP and boundary AP_fixed of masks: width of the boundary as a share of the image's diagonal (LVIS
    challenge 2021: 0.02); 0 for none."""
    pool: bool = True
    """Also AP_pool: the detections of AP_fixed in one ranking over all categories (Dave et al.)."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples of the val images for 95 % intervals of AP and AP_fixed; 0 for none."""
    errors: bool = True
    """Also what each kind of error costs (TIDE), by frequency group, and which categories are confused."""
    calibration: bool = True
    """Also whether scores are shares of right detections, by frequency group."""


class Ablations(Section):
    """Settings compared over seeds (``snakemake ablations``): means, spread, and differences of runs of equal seed."""

    comparisons: dict[str, list[str]] = {}
    """Setting -> the settings that it is compared with. A setting is a model with ``seeds``, or a single model."""
    note: str = ""
    """Note below the tables: how world, settings and seeds were chosen."""


class Report(Section):
    """Tables, figures and pictures."""

    gallery_images: int = Field(24, ge=0)
    """Images drawn in the gallery."""
    gallery_score: float = Field(0.3, ge=0, le=1)
    """Score from which detections are drawn: the model's own, whatever re-scoring adds."""
    sample_images: int = Field(2000, ge=1)
    """Training images from which the samples of the box head are counted, with and without the equalization loss."""
    tables: dict[str, dict[str, list[str]]] = {}
    """Rows of published tables that this recipe reproduces: table (``table1`` .. ``table5`` of the paper, ``lvis_v1``:
    later publications on LVIS v1) -> row -> names of evaluations, i.e. of models, ``variants`` or ``ensemble``; several
    names are runs of a row with different seeds."""
    ablations: Ablations = Ablations()
    """Settings compared over seeds."""


class Compute(Section):
    """Resources of the workflow's jobs. Nothing here changes a result (beyond rounding)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of training and inference."""
    fast_cpu_modules: bool = False
    """On a CPU: our own code for RoIAlign and the mask head instead of torchvision's and detectron2's. On a GPU it
    does nothing."""
    deformable_convolution: Literal["auto", "torchvision", "batched"] = "auto"
    """``torchvision``: its operator, which processes the groups of channels one by one; ``batched``: ours, all at once.
    ``auto`` is ``batched`` on a CPU, where it takes a fifth of the time in training, and ``torchvision`` on a GPU,
    where nothing has been measured (``python -m tests.benchmarks deformable --device cuda`` does)."""
    threads: int = Field(8, ge=1)
    """CPU threads of an inference job, and of a training job for each of its GPUs (or in all, without GPUs)."""
    training_gpus: int = Field(8, ge=0)
    """GPUs of a training job, per node."""
    training_nodes: int = Field(1, ge=1)
    """Nodes of a training job. Several need Slurm; batch size and learning rate do not depend on it."""
    inference_gpus: int = Field(1, ge=0)
    """GPUs of an inference job."""
    local_gpus: int | None = Field(None, ge=0)
    """Without a cluster: GPUs of this machine to use. Not given: all that ``CUDA_VISIBLE_DEVICES`` or ``nvidia-smi``
    name. Trainings that ask for more get these, with the same batch in more parts."""
    training_hours: float = Field(24, gt=0)
    """Time limit of the first attempt of a training job; grows with the attempt."""
    inference_hours: float = Field(4, gt=0)
    """Time limit of the first attempt of an inference job; grows with the attempt."""
    longest_hours: float = Field(48, gt=0)
    """No attempt asks for more than this (the limit of the cluster's partition): trainings go on in the next one."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Memory of a GPU in GiB, as nvidia-smi states it (16, 24, 32, 40, 80 ...). A recipe whose estimate needs more is
    refused before it starts; not given: nothing is refused."""
    memory_gb: int = Field(64, ge=1)
    """Memory of a training or inference job, per node."""
