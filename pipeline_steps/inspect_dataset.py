"""Step: a FiftyOne data set of a split, with ground truth and predictions, for FiftyOne's app.

It stays in the database, with right and wrong detections tagged per IoU and with saved views (rare misses, confident
mistakes, images that are not exhaustively annotated). The database is the one that FIFTYONE_DATABASE_URI names, or else
FiftyOne's own.
"""

import argparse
import os
import shlex
from pathlib import Path

from pipeline_steps.common.cli import add_named_files, run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe import load_recipe

parser = step_parser("inspect_dataset", __doc__)
parser.add_argument("--recipe", type=Path, required=True, metavar="YAML", help="recipe of the run")
parser.add_argument("--split", choices=("val", "train"), default="val", help="split to show")
add_named_files(parser, "--detections", "NAME=PARQUET", "tables of any models", least=1)
parser.add_argument("--name", metavar="NAME", help="name of the data set (default: recipe and split)")
parser.add_argument("--images", type=int, metavar="N", help="only the first N images by id")
parser.add_argument("--min-score", type=float, default=0.1, metavar="S", help="leave out detections below this")
parser.add_argument("--launch", action="store_true", help="open the app and wait until it is closed")
parser.add_argument("--port", type=int, default=5151, help="port of the app")


def main(arguments: argparse.Namespace) -> None:
    from pipeline_steps.data.lvis import read_lvis
    from pipeline_steps.inspection.database import prepare_database
    from pipeline_steps.run.data_files import DatasetPaths

    recipe = load_recipe(arguments.recipe)
    paths = DatasetPaths(recipe)
    dataset = read_lvis(paths.annotations(arguments.split), arguments.split)
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    library_path = prepare_database()

    from pipeline_steps.inspection.fiftyone_dataset import build_inspection

    name, split, tables = arguments.name or f"{recipe.name}_{arguments.split}", arguments.split, arguments.detections
    try:
        data = build_inspection(dataset, paths, tables, name, split, arguments.images, arguments.min_score)
    except ConnectionError as error:
        raise UserError(f"no FiftyOne database: {error}; check FIFTYONE_DATABASE_URI") from None
    print(f"{len(data)} images; saved views: {', '.join(data.list_saved_views())}")
    if arguments.launch:
        import fiftyone as fo

        # Remote: do not look for a browser here. On this address others cannot reach it; ssh -L forwards it.
        session = fo.launch_app(data, port=arguments.port, address="127.0.0.1", remote=True)
        print(f"open http://localhost:{arguments.port} in a browser; end with Ctrl-C", flush=True)
        session.wait(-1)
        return
    library = f"LD_LIBRARY_PATH={shlex.quote(library_path)} " if library_path else ""
    # With its name: without one FiftyOne 1.22 starts its server before its database, and the server finds none.
    print(f"open it with: {library}fiftyone app launch {shlex.quote(name)}")


if __name__ == "__main__":
    run_step(parser, main)
