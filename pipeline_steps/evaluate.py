"""Step: average precision of a detections file against ground truth.

LVIS AP as the official evaluator defines it (at most 300 detections per image), and AP_fixed (no cap per image, at most
10,000 per category over the data set), for boxes or masks, and for masks both by boundary IoU; with ``--format coco``
COCO AP. With ``--expert`` LVIS AP over the categories that an expert shares with LVIS. Further questions, each by an
option: AP_pool, intervals by a bootstrap over images, TIDE's errors in the federated protocol, calibration
(docs/evaluation.md explains them).

--iou-type segm takes nothing but the masks: a bbox beside a mask in a results file has no effect, and objects are
small, medium or large by their masks. (The lvis package would take the areas, and so APs, APm and APl, from the boxes
if the first result of the file has one; write_submission --check says whether a file has such boxes.) --iou-type bbox
takes nothing but the boxes. Ground truth and results are checked first: what the official evaluator would misread is
refused, naming annotation and image or row.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_steps.common.atomic import atomic_output, write_json
from pipeline_steps.common.cli import step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

if TYPE_CHECKING:
    from pipeline_steps.evaluation.analyses import Analyses

parser = step_parser("evaluate", __doc__)
parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="ground truth")
parser.add_argument(
    "--detections", type=Path, required=True, metavar="FILE", help="detections table (.parquet) or results file (.json)"
)
parser.add_argument("--iou-type", choices=("segm", "bbox"), required=True, help="compare masks or boxes")
parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="metrics in per cent")
parser.add_argument("--per-category", type=Path, metavar="CSV", help="also write one row per category")
parser.add_argument(
    "--train-annotations", type=Path, metavar="JSON", help="train file, for the column train_images of --per-category"
)
parser.add_argument(
    "--max-detections", type=int, default=300, metavar="N", help="LVIS AP: detections per image that count"
)
parser.add_argument(
    "--fixed-per-category", type=int, default=10000, metavar="N", help="AP_fixed: detections per category that count"
)
parser.add_argument(
    "--evaluator",
    choices=("compiled", "official"),
    default="compiled",
    help="who computes AP and AP_fixed; official: the lvis package, or pycocotools for COCO; same result, slower",
)
parser.add_argument(
    "--fixed-sizes",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="also AP50, AP75 and AP by size under the rule of AP_fixed",
)
parser.add_argument(
    "--recall",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="also AR by size, by frequency group and by category",
)
parser.add_argument(
    "--boundary-ratio",
    type=float,
    metavar="R",
    help="also boundary AP and boundary AP_fixed, with boundaries of this share of the image's diagonal; 0 for "
    "none (default: 0.02, that of the LVIS challenge 2021, with --iou-type segm)",
)
parser.add_argument("--format", choices=("lvis", "coco"), default="lvis", help="format of the annotations and protocol")
parser.add_argument(
    "--pool", action=argparse.BooleanOptionalAction, default=True, help="also AP_pool: all categories in one ranking"
)
parser.add_argument(
    "--bootstrap", type=int, default=0, metavar="N", help="intervals from N resamples of the images, e.g. 1000"
)
parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the resamples")
parser.add_argument(
    "--errors", action="store_true", help="how much AP each kind of error costs, and which categories are confused"
)
parser.add_argument(
    "--parents",
    type=Path,
    metavar="CSV",
    help="parents of categories (columns category, parent), for near-synonyms in --errors; for LVIS "
    "config/categories/parents.csv",
)
parser.add_argument("--calibration", action="store_true", help="how well scores predict correctness")
parser.add_argument("--recipe", type=Path, metavar="FILE", help="recipe, for --expert")
parser.add_argument(
    "--expert",
    metavar="NAME",
    help="the detections are of this expert of the recipe: its categories are mapped to those of LVIS, and only "
    "the shared ones count",
)


def _boundary_ratio(arguments: argparse.Namespace) -> float | None:
    given = arguments.boundary_ratio
    if given is None:
        return 0.02 if arguments.iou_type == "segm" else None
    if not 0 <= given < 1:
        raise UserError(
            f"--boundary-ratio is {given:g}: give a share of the image's diagonal from 0 (no boundary AP) to below 1, "
            "for example 0.02"
        )
    if given and arguments.iou_type == "bbox":
        raise UserError("--boundary-ratio needs masks: evaluate with --iou-type segm, or leave it out")
    return given or None


def _expert_ids(arguments: argparse.Namespace) -> dict[int, int] | None:
    if arguments.expert is None:
        return None
    from pipeline_steps.data.expert_categories import expert_lvis_ids
    from pipeline_steps.data.lvis import read_categories

    return expert_lvis_ids(load_recipe(arguments.recipe), arguments.expert, read_categories(arguments.annotations))


def _analyses(arguments: argparse.Namespace) -> Analyses:
    from pipeline_steps.evaluation.analyses import Analyses

    analyses = Analyses(
        pool=arguments.pool and arguments.format == "lvis",
        bootstrap=arguments.bootstrap,
        seed=arguments.seed,
        errors=arguments.errors,
        parents=arguments.parents,
        calibration=arguments.calibration,
    )
    if arguments.bootstrap < 0 or arguments.bootstrap == 1 or arguments.seed < 0:
        raise UserError("--bootstrap needs at least 2 resamples (0 for none), and --seed a number from 0")
    if arguments.format == "coco" and analyses:
        raise UserError("--bootstrap, --errors and --calibration need --format lvis")
    return analyses


def _line(metrics: dict[str, Any]) -> str:
    shown = ("AP", "APr", "APc", "APf", "AP_fixed", "APr_fixed", "AP_pool", "AP_boundary", "AP_boundary_fixed")
    sure = metrics.get("bootstrap", {}).get("intervals", {})
    parts = [
        f"{key} {value:.2f}" + (f" ± {sure[key]['half_width']:.2f}" if sure.get(key) else "")
        for key in shown
        if isinstance(value := metrics.get(key), float)
    ]
    return f"{metrics['iou_type']} " + (", ".join(parts) or "no ground truth")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.data.lvis import read_categories
    from pipeline_steps.evaluation.metrics import Figures, coco_metrics, lvis_metrics

    if min(arguments.max_detections, arguments.fixed_per_category) < 1:
        raise UserError("--max-detections and --fixed-per-category must be at least 1")
    if arguments.expert is not None and (arguments.recipe is None or arguments.format == "coco"):
        raise UserError("--expert needs --recipe, which says how its categories are mapped, and --format lvis")
    figures = Figures(arguments.recall, arguments.fixed_sizes, _boundary_ratio(arguments))
    analyses = _analyses(arguments)
    if arguments.format == "coco":
        metrics, categories = coco_metrics(
            arguments.annotations, arguments.detections, arguments.iou_type, arguments.evaluator, figures
        )
    else:
        metrics, categories = lvis_metrics(
            arguments.annotations,
            arguments.detections,
            arguments.iou_type,
            arguments.max_detections,
            arguments.fixed_per_category,
            arguments.evaluator,
            read_categories(arguments.train_annotations) if arguments.train_annotations else None,
            _expert_ids(arguments),
            figures,
            analyses,
        )
    if arguments.per_category:
        with atomic_output(arguments.per_category) as temporary:
            categories.to_csv(temporary, index=False)
    write_json(arguments.output, metrics, indent=1)
    print(f"{arguments.detections}: {_line(metrics)}")


if __name__ == "__main__":
    run_recorded_step(parser, main)
