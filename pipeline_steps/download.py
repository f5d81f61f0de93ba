"""Download the public data sets and pre-trained weights below ``datasets_root``.

What is on the disk already and whole is used in place. Interrupted downloads go on where they stopped. The table of
sources is ``config/sources.csv``; ``data.download`` in the recipe sets mirrors, parallel files and retries.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.data.download.groups import (
    Settings,
    bytes_to_fetch,
    download_group,
    folder_manifest,
    plan,
    space_needed,
)
from pipeline_steps.data.download.openimages_images import download_images, read_image_list, require_few_failures
from pipeline_steps.data.download.sources import Source, mirrored, read_sources
from pipeline_steps.data.download.transfer import Patience
from pipeline_steps.recipe import Recipe, load_recipe

GROUPS = ("lvis", "coco_annotations", "coco_images", "openimages_tables", "openimages_images", "weights")


def build_parser() -> argparse.ArgumentParser:
    """Command line of this step."""
    parser = step_parser("download", __doc__ or "")
    parser.add_argument("--recipe", required=True, help="recipe YAML file")
    parser.add_argument("--only", choices=GROUPS, action="append", help="this group only (may be repeated)")
    parser.add_argument("--file", default="*", help="only files whose name matches this pattern")
    parser.add_argument("--image-list", type=Path, help="openimages_images: file with one image id in a line")
    parser.add_argument("--manifest", type=Path, help="write what is on the disk afterwards to this JSON file")
    parser.add_argument("--dry-run", action="store_true", help="print what would be fetched, and how much")
    return parser


def _settings(recipe: Recipe) -> Settings:
    options = recipe.data.download
    return Settings(
        root=Path(recipe.datasets_root),
        mirrors=dict(options.mirrors),
        parallel_files=options.parallel_files,
        keep_archives=options.keep_archives,
        patience=Patience(retries=options.retries, timeout=options.timeout_seconds),
    )


def _print_plan(sources: list[Source], settings: Settings) -> None:
    rows = plan(sources, settings)
    for source, present in rows:
        remaining = bytes_to_fetch(source, settings.root)
        size = "on disk" if present else f"{remaining / 1e6:,.1f} MB" if source.bytes else "size unknown"
        print(f"{size:>16}  {source.file}  <-  {mirrored(source.url, settings.mirrors)}  ({source.licence})")
    missing = [source for source, present in rows if not present]
    total = sum(bytes_to_fetch(source, settings.root) for source in missing)
    unknown = sum(source.bytes is None for source in missing)
    space = space_needed(missing, settings.root)
    print(
        f"{len(missing)} of {len(rows)} to fetch: {total / 1e9:.2f} GB and {unknown} of unknown size; "
        f"{space / 1e9:.2f} GB of disk with what is unpacked"
    )


def _fetch_images(source: Source, arguments: argparse.Namespace, recipe: Recipe, settings: Settings) -> None:
    if arguments.image_list is None:
        raise UserError("openimages_images needs --image-list (written by: select_openimages --list-only FILE)")
    ids = read_image_list(arguments.image_list)
    folder = (settings.root / source.file).parent
    outcome = download_images(
        ids,
        mirrored(source.url, settings.mirrors),
        folder,
        recipe.data.download.parallel_images,
        settings.patience,
    )
    print(f"{outcome.present} images were there, {outcome.fetched} fetched, {len(outcome.failed)} failed")
    require_few_failures(outcome, recipe.data.download.max_failed_images, len(ids))
    if arguments.manifest:
        write_json(arguments.manifest, {"images": len(ids), "failed": outcome.failed}, indent=1)


def main(arguments: argparse.Namespace) -> None:
    """Fetch the chosen groups."""
    recipe = load_recipe(arguments.recipe)
    if recipe.data.source != "download":
        raise UserError(
            f"recipe {recipe.name} has data.source {recipe.data.source}: there is nothing to download; its data are "
            "made by `python -m pipeline_steps.make_mini`"
        )
    settings = _settings(recipe)
    groups = arguments.only or [group for group in GROUPS if group != "openimages_images"]
    sources = [
        source
        for source in read_sources(recipe.data.download.sources)
        if source.group in groups
        and source.lvis_version in ("", recipe.lvis_version)
        and fnmatch(Path(source.file).name, arguments.file)
    ]
    if not sources:
        raise UserError(f"{recipe.data.download.sources}: no source of {groups} matches {arguments.file!r}")
    images = [source for source in sources if source.group == "openimages_images"]
    files = [source for source in sources if source.group != "openimages_images"]
    if arguments.dry_run:
        _print_plan(files, settings)
        return
    if files:
        paths = download_group(files, settings)
        if arguments.manifest:
            write_json(arguments.manifest, folder_manifest(paths, settings.root), indent=1)
    for source in images:
        _fetch_images(source, arguments, recipe, settings)


if __name__ == "__main__":
    run_step(build_parser(), main)
