"""Compiled matching of detections to objects, and precision over recall of the matches, as the evaluators define both.

Symbols: m detections, g objects, p pairs of them that overlap, T = 10 IoU thresholds, R recall levels, C categories.
"""

import numpy as np
from numba import njit

EPSILON = float(np.spacing(1))  # what the evaluators add to the denominator of precision


@njit(cache=True, nogil=True)
def match_ranked(cells, first_pair, targets, ious, crowd, outside, loose, thresholds):
    """Match detections to objects: each, in turn, to the free object of its cell that it overlaps most.

    Args:
        cells: int64[m], category in an image of each detection; those of a cell by descending score.
        first_pair: int64[m + 1], where the pairs of each begin.
        targets, ious: int64[p], object, and float64[p], overlap, of each pair.
        crowd: bool[g], regions: second choice, ignored, and never taken.
        outside: bool[g], objects of other sizes: second choice and ignored, but taken by what matches them.
        loose: bool[m], ignored where unmatched.
        thresholds: float64[T].

    Returns:
        true, ignored: uint16[m], bit t: right, and neither right nor wrong, at threshold t.
        first: int64[m], object matched at the first threshold, or -1.
    """
    count = len(cells)
    true, ignored = np.zeros(count, np.uint16), np.zeros(count, np.uint16)
    first, taken = np.full(count, -1, np.int64), np.zeros(len(crowd), np.uint16)
    for row in range(count):
        for t in range(len(thresholds)):
            bit = np.uint16(1 << t)
            least = min(thresholds[t], 1 - 1e-10)
            best, target, second, region = least, np.int64(-1), least, np.int64(-1)
            for pair in range(first_pair[row], first_pair[row + 1]):
                other = targets[pair]
                if taken[other] & bit:
                    continue
                if crowd[other] or outside[other]:
                    if ious[pair] >= second:
                        second, region = ious[pair], other
                elif ious[pair] >= best:
                    best, target = ious[pair], other
            if target >= 0:
                true[row] |= bit
                taken[target] |= bit
                if t == 0:
                    first[row] = target
            elif region >= 0 or loose[row]:
                ignored[row] |= bit
                if region >= 0 and not crowd[region]:
                    taken[region] |= bit
    return true, ignored, first


@njit(cache=True, nogil=True)
def precision_and_recall(true, ignored, bounds, objects, recalls):
    """Interpolated precision float64[T, R, C] and recall float64[T, C]; -1 without objects.

    Args:
        true, ignored: uint16[m], see :func:`match_ranked`, by category and descending score.
        bounds: int64[C + 1], where the detections of each category begin.
        objects: int64[C], objects that count.
        recalls: float64[R].
    """
    thresholds, categories = 10, len(objects)
    precision = np.full((thresholds, len(recalls), categories), -1.0)
    recall = np.full((thresholds, categories), -1.0)
    values, found = np.empty(len(true)), np.empty(len(true))
    for category in range(categories):
        if not objects[category]:
            continue
        for t in range(thresholds):
            bit, right, wrong, number = np.uint16(1 << t), 0.0, 0.0, 0
            for row in range(bounds[category], bounds[category + 1]):
                if true[row] & bit:
                    right += 1
                elif ignored[row] & bit:
                    continue
                else:
                    wrong += 1
                found[number], values[number] = right / objects[category], right / (wrong + right + EPSILON)
                number += 1
            for k in range(number - 1, 0, -1):
                values[k - 1] = max(values[k - 1], values[k])
            k = 0
            for r in range(len(recalls)):
                while k < number and found[k] < recalls[r]:
                    k += 1
                precision[t, r, category] = values[k] if k < number else 0.0
            recall[t, category] = right / objects[category]
    return precision, recall


@njit(cache=True, nogil=True)
def resampled_ap(weights, images, true, ignored, bounds, object_images, object_bounds, recalls, thresholds):
    """AP of each category over all thresholds under weights of the images: float64[C], 0..1; -1 without objects.

    Args:
        weights: int32[N], how often each image counts.
        images: int32[m], image of each detection, by category and descending score.
        true, ignored: uint16[m], see :func:`match_ranked`.
        bounds: int64[C + 1], where the detections of each category begin.
        object_images: int32[g], image of each object, by category.
        object_bounds: int64[C + 1].
        recalls: float64[R].
        thresholds: T.
    """
    count = len(bounds) - 1
    result = np.full(count, -1.0)
    most = 1
    for category in range(count):
        most = max(most, object_bounds[category + 1] - object_bounds[category])
    right, wrong = np.empty((thresholds, most)), np.empty((thresholds, most))
    for category in range(count):
        objects = 0
        for k in range(object_bounds[category], object_bounds[category + 1]):
            objects += weights[object_images[k]]
        if not objects:
            continue
        total = 0
        found, left_out = np.zeros(thresholds, np.int64), np.zeros(thresholds, np.int64)
        length = np.zeros(thresholds, np.int64)
        for row in range(bounds[category], bounds[category + 1]):
            weight = weights[images[row]]
            if not weight:
                continue
            total += weight
            if ignored[row]:
                for t in range(thresholds):
                    left_out[t] += weight * ((ignored[row] >> t) & 1)
            if true[row]:
                for t in range(thresholds):
                    if (true[row] >> t) & 1:
                        found[t] += weight
                        right[t, length[t]] = found[t]
                        wrong[t, length[t]] = total - left_out[t] - found[t]
                        length[t] += 1
        area = 0.0
        for t in range(thresholds):
            precision, above = 0.0, 0
            for k in range(length[t] - 1, -1, -1):
                # Recall levels that this detection reaches and the one before it does not have its precision.
                precision = max(precision, right[t, k] / (wrong[t, k] + right[t, k] + EPSILON))
                before = right[t, k - 1] / objects if k else -1.0
                if k == length[t] - 1:
                    recall = right[t, k] / objects
                    above = min(int(recall * 100) + 1, len(recalls) - 1)
                    while recalls[above] > recall:
                        above -= 1
                below = min(int(before * 100) + 1, len(recalls) - 1) if k else -1
                while below >= 0 and recalls[below] > before:
                    below -= 1
                area += precision * (above - below)
                above = below
        result[category] = area / (thresholds * len(recalls))
    return result
