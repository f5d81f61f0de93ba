"""Step: a page of pictures, ground truth beside predictions, and optionally one small picture of a few of them."""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_text
from pipeline_steps.common.cli import step_parser
from pipeline_steps.recipe import load_recipe
from pipeline_steps.run.provenance.step import run_recorded_step

parser = step_parser("draw_predictions", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
parser.add_argument("--detections", type=Path, required=True, metavar="PARQUET", help="detections to draw")
parser.add_argument("--split", choices=("val", "train"), default="val", help="split that they belong to")
parser.add_argument("--output", type=Path, required=True, metavar="HTML", help="self-contained page")
parser.add_argument("--picture", type=Path, metavar="PNG", help="also write a small picture (.png or .jpg)")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.analysis.scenes import SceneReader
    from pipeline_steps.analysis.showcase import choose_examples, rank_scenes
    from pipeline_steps.data.lvis import read_lvis
    from pipeline_steps.report.gallery import gallery_page
    from pipeline_steps.report.picture import CANDIDATES, write_picture
    from pipeline_steps.run.data_files import DatasetPaths

    recipe = load_recipe(arguments.recipe)
    paths = DatasetPaths(recipe)
    dataset = read_lvis(paths.annotations(arguments.split), arguments.split)
    reader = SceneReader(dataset, arguments.detections, recipe.report.gallery_score)
    title, source = f"Recipe {recipe.name}: predictions on {arguments.split}", f"Detections of {arguments.detections}."
    lead = ["Data: the embedded mini world, not LVIS."] if recipe.data.source == "mini" else []
    rankings = rank_scenes(reader)
    sections = choose_examples(rankings, recipe.report.gallery_images)
    write_text(arguments.output, gallery_page(reader, sections, paths, title, source, lead))
    if arguments.picture:
        write_picture(reader, choose_examples(rankings, CANDIDATES), paths, arguments.picture)


if __name__ == "__main__":
    run_recorded_step(parser, main)
