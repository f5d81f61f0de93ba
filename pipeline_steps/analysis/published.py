"""Published result tables as data: mask AP on LVIS val.

``table1`` to ``table5``: Tan et al., "Equalization Loss for Large Vocabulary Instance Segmentation", LVIS Challenge
Track at ICCV 2019, on LVIS v0.5. ``lvis_v1``: the same losses and their successors on LVIS v1,

- baseline, RFS, EQL and EQLv2: README of the authors' repository github.com/tztztztztz/eqlv2, "Pretrained Models on
  LVIS" (Tan et al., "Equalization Loss v2", CVPR 2021); ResNet-50, 12 epochs ("1x"), batch 16;
- Seesaw: README of configs/seesaw_loss in github.com/open-mmlab/mmdetection (Wang et al., "Seesaw Loss for Long-Tailed
  Instance Segmentation", CVPR 2021); 24 epochs ("2x"); it gives no AP of frequency groups.

The paper has no figures on v1. A recipe says by ``report.tables`` which of its evaluations reproduce which row.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline_steps.common.errors import UserError


@dataclass(frozen=True)
class PublishedRow:
    """One row of a table: mask AP in per cent, overall and of rare, common, frequent categories; NaN: not published."""

    label: str  # what the publication calls it, with its setting where rows differ
    AP: float
    APr: float
    APc: float
    APf: float


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper or of a later publication."""

    caption: str  # its caption
    rows: dict[str, PublishedRow]  # rows in its order, by the key that recipes name them by
    data: str = "LVIS"
    """Data of its figures, as :func:`pipeline_steps.analysis.measured.data_name` calls them; ``LVIS`` is v0.5."""
    source: str = "report"  # where the figures come from, in a word


NOT_PUBLISHED = float("nan")


def _table(caption: str, **rows: tuple[str, float, float, float, float]) -> PublishedTable:
    return PublishedTable(caption, {key: PublishedRow(*row) for key, row in rows.items()})


TABLES = {
    "table1": _table(
        "Baselines on LVIS val v0.5",
        softmax_lvis_paper=("ResNet50-Softmax (LVIS paper)", 21.0, 3.2, 21.3, 27.7),
        softmax=("ResNet50-Softmax (re-implementation)", 20.8, 5.6, 21.5, 25.6),
        sigmoid=("ResNet50-Sigmoid", 20.1, 6.5, 19.9, 25.4),
    ),
    "table2": _table(
        "Equalization loss and plain sigmoid loss, ResNet-50 Mask R-CNN, val",
        sigmoid=("Baseline sigmoid loss", 20.1, 6.5, 19.9, 25.4),
        eql=("Equalization loss", 22.8, 10.1, 25.0, 25.1),
    ),
    "table3": _table(
        "EQL (equalization loss), RS (resampling), PR (COCO pre-training), IG (COCO Ignore), ResNet-50, val",
        sigmoid=("baseline", 20.1, 6.5, 19.9, 25.4),
        rs=("RS", 21.3, 12.2, 21.5, 24.7),
        eql=("EQL", 22.8, 10.1, 25.0, 25.1),
        eql_rs=("EQL + RS", 23.3, 15.3, 24.8, 24.5),
        eql_pr=("EQL + PR", 23.9, 11.7, 26.0, 26.1),
        eql_ig=("EQL + IG", 23.5, 14.8, 25.0, 25.2),
        eql_rs_pr=("EQL + RS + PR", 25.2, 17.9, 26.8, 26.2),
    ),
    "table4": _table(
        "Challenge tricks, each added to the rows above it, val",
        baseline=("Challenge baseline", 30.1, 19.3, 31.8, 32.3),
        se154=("+ SE154", 30.8, 19.7, 32.2, 33.4),
        openimages=("+ OpenImage data", 31.4, 21.5, 33.1, 33.3),
        multi_scale_boxes=("+ multi-scale box testing", 32.3, 20.5, 34.7, 34.2),
        ensemble=("+ re-scoring ensemble + expert models", 35.1, 24.8, 37.5, 36.3),
        multi_scale_masks=("+ multi-scale mask testing", 36.4, 25.5, 38.6, 38.1),
    ),
    "table5": _table(
        "Final results",
        val_lvis_paper=("LVIS paper, val", 27.1, 15.6, 27.5, 31.4),
        val=("Challenge entry, val", 36.4, 25.5, 38.6, 38.1),
        test_lvis_paper=("LVIS paper, test", 20.5, 9.8, 21.1, 30.0),
        test=("Challenge entry, test", 28.9, 17.7, 30.8, 36.7),
    ),
    "lvis_v1": PublishedTable(
        "Mask R-CNN with FPN on LVIS v1 val",
        {
            "softmax": PublishedRow("ResNet-50, 12 epochs, softmax", 16.1, 0.0, 12.0, 27.4),
            "rfs": PublishedRow("ResNet-50, 12 epochs, softmax with resampling (RFS)", 22.2, 11.5, 21.2, 28.0),
            "eql": PublishedRow("ResNet-50, 12 epochs, EQL", 18.6, 2.1, 17.4, 27.2),
            "eqlv2": PublishedRow("ResNet-50, 12 epochs, EQLv2", 23.7, 14.9, 22.8, 28.6),
            "seesaw": PublishedRow("ResNet-50, 24 epochs, Seesaw, RFS, normalised masks", 26.8, *3 * [NOT_PUBLISHED]),
            "seesaw_r101": PublishedRow(
                "ResNet-101, 24 epochs, Seesaw, RFS, normalised masks", 28.2, *3 * [NOT_PUBLISHED]
            ),
        },
        data="LVIS v1",
        source="published",
    ),
}
"""Published tables by name."""


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known := list(known), n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def published_table(name: str) -> PublishedTable:
    """The published table ``name``.

    Raises:
        UserError: there is none.
    """
    if name not in TABLES:
        raise UserError(f"no published table {name!r}; {_nearest(name, TABLES)}")
    return TABLES[name]


def check_rows(name: str, rows: Iterable[str]) -> None:
    """Refuse rows that the published table ``name`` does not have.

    Raises:
        UserError: with the nearest row that there is.
    """
    table = published_table(name)
    for row in rows:
        if row not in table.rows:
            raise UserError(f"report.tables.{name}: no row {row!r}; {_nearest(row, table.rows)}")


def check_tables(tables: Mapping[str, Iterable[str]]) -> None:
    """:func:`check_rows` for all of a recipe's ``report.tables``."""
    for name, rows in tables.items():
        check_rows(name, rows)
