"""Compiled scanning of the OpenImages boxes file: only the cells that are needed are looked at.

General CSV readers split all 21 cells of 14.6 million lines. Here a line whose class is not wanted is left after its
third cell, and numbers are parsed for wanted lines only.

Symbols: *run* successive wanted lines of one image; *code* position of a class in the vocabulary; *target* position of
the LVIS category that a class stands for, or -1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ID_BYTES = 16
"""Length of an OpenImages ImageID, 16 hexadecimal digits."""

# Roles of columns.
OTHER, IMAGE, LABEL, X_MIN, X_MAX, Y_MIN, Y_MAX, GROUP, DEPICTION, INSIDE = range(10)
ROLES = 10

# Kinds of lines that cannot be used.
SHORT, UNKNOWN_CLASS, BAD_ID, BAD_NUMBER, BAD_BOX, BAD_FLAG = range(6)
PROBLEMS = 6

GROUP_FLAG, DEPICTION_FLAG, INSIDE_FLAG = 1, 2, 4

_TABLE = 8192
_POWERS = 22
_POWERS_OF_TEN = 10.0 ** np.arange(_POWERS + 1)
_OUTSIDE = 0.001
_NEWLINE, _COMMA, _RETURN, _MINUS, _PLUS, _POINT, _ZERO = 10, 44, 13, 45, 43, 46, 48
_SMALL_E, _LARGE_E = 101, 69


@njit(cache=True, nogil=True, inline="always")
def _hash(buffer, start, stop):
    """FNV-1a, 64 bits."""
    value = np.uint64(14695981039346656037)
    for index in range(start, stop):
        value = (value ^ np.uint64(buffer[index])) * np.uint64(1099511628211)
    return value


@njit(cache=True, nogil=True)
def class_table(names, ends):
    """Hash table of class names: (keys uint64[8192], codes int16[8192], -1 where empty).

    Args:
        names: uint8[n], all names one after the other.
        ends: int64[k], end of each name in ``names``.
    """
    keys, codes = np.zeros(_TABLE, np.uint64), np.full(_TABLE, -1, np.int16)
    start = 0
    for code in range(len(ends)):
        key = _hash(names, start, ends[code])
        slot = np.int64(key & np.uint64(_TABLE - 1))
        while codes[slot] >= 0:
            slot = (slot + 1) & (_TABLE - 1)
        keys[slot], codes[slot] = key, code
        start = ends[code]
    return keys, codes


@njit(cache=True, nogil=True, inline="always")
def _find(keys, codes, key):
    slot = np.int64(key & np.uint64(_TABLE - 1))
    while codes[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & (_TABLE - 1)
    return codes[slot]


@njit(cache=True, nogil=True)
def parse_number(buffer, start, stop):
    """(value, whether ``buffer[start:stop]`` is a decimal number). Digits beyond the 17th do not count."""
    index, sign = start, 1.0
    if index < stop and (buffer[index] == _MINUS or buffer[index] == _PLUS):
        sign = -1.0 if buffer[index] == _MINUS else 1.0
        index += 1
    digits, mantissa, power, after_point = 0, 0, 0, False
    while index < stop:
        byte = buffer[index]
        if _ZERO <= byte <= 57:
            digits += 1
            if mantissa < 10**16:
                mantissa = mantissa * 10 + (np.int64(byte) - _ZERO)
                power -= after_point
            else:
                power += not after_point
        elif byte == _POINT and not after_point:
            after_point = True
        else:
            break
        index += 1
    if digits and index < stop and (buffer[index] == _SMALL_E or buffer[index] == _LARGE_E):
        index += 1
        negative = index < stop and buffer[index] == _MINUS
        if index < stop and (buffer[index] == _MINUS or buffer[index] == _PLUS):
            index += 1
        exponent, digits = 0, 0
        while index < stop and _ZERO <= buffer[index] <= 57:
            exponent = min(exponent * 10 + (np.int64(buffer[index]) - _ZERO), 400)
            digits += 1
            index += 1
        power += -exponent if negative else exponent
    correct = digits > 0 and index == stop
    if power < -_POWERS or power > 0:
        return sign * mantissa * 10.0**power, correct
    return sign * mantissa / _POWERS_OF_TEN[-power], correct


@njit(cache=True, nogil=True, inline="always")
def _note(problems, examples, kind, line):
    if problems[kind] == 0:
        examples[kind] = line
    problems[kind] += 1


@njit(cache=True, nogil=True)
def scan_block(buffer, newlines, first_line, roles, classes, state, out):
    """Scan whole lines; returns the number of rows written to the arrays of ``out``.

    Args:
        buffer: uint8[n], lines; the last byte is a line feed.
        newlines: int64[lines], positions of the line feeds.
        first_line: number of the first line in the file, for messages.
        roles: int8[columns], role of each column up to the last that is needed.
        classes: hash table of the classes (keys, codes); bool[classes], classes whose rows are kept; int16[classes],
            LVIS position or -1.
        state: in and out. uint8[17], ImageID of the current run, its last byte tells whether there is one;
            int64[categories + 1], last run with a usable box of the category, the last element is the number of the
            current run; twice int64[PROBLEMS], how many lines of each kind, number of the first one.
        out: int32[lines], run; uint8[lines, 16], ids of the runs that start in this block, in order; int16[lines],
            class; float32[lines, 4], x1 y1 x2 y2 as fractions; uint8[lines], flags; bool[lines], first usable box of
            its category in its run.
    """
    keys, codes, wanted, targets = classes
    last_id, last_run, problems, examples = state
    out_run, out_ids, out_code, out_box, out_flags, out_first = out
    starts, stops = np.zeros(ROLES, np.int64), np.zeros(ROLES, np.int64)
    number = np.zeros(4, np.float64)
    rows, begin = 0, 0
    started = 0
    for line in range(len(newlines)):
        end = newlines[line]
        position, column, code, skip = begin, 0, -1, False
        begin = end + 1
        if end > position and buffer[end - 1] == _RETURN:
            end -= 1
        if end == position:
            continue
        while column < len(roles):
            start = position
            while position < end and buffer[position] != _COMMA:
                position += 1
            role = roles[column]
            if role != OTHER:
                starts[role], stops[role] = start, position
                if role == LABEL:
                    code = _find(keys, codes, _hash(buffer, start, position))
                    if code < 0:
                        _note(problems, examples, UNKNOWN_CLASS, first_line + line)
                    if code < 0 or not wanted[code]:
                        skip = True
                        break
            column += 1
            if position >= end:
                break
            position += 1
        if skip:
            continue
        if column < len(roles):
            _note(problems, examples, SHORT, first_line + line)
            continue
        if stops[IMAGE] - starts[IMAGE] != ID_BYTES:
            _note(problems, examples, BAD_ID, first_line + line)
            continue
        good = True
        for side in range(4):
            value, correct = parse_number(buffer, starts[X_MIN + side], stops[X_MIN + side])
            number[side] = value
            good = good and correct
        if not good:
            _note(problems, examples, BAD_NUMBER, first_line + line)
            continue
        x1, x2, y1, y2 = number
        if not (-_OUTSIDE <= x1 < x2 <= 1 + _OUTSIDE and -_OUTSIDE <= y1 < y2 <= 1 + _OUTSIDE):
            _note(problems, examples, BAD_BOX, first_line + line)
            continue
        flags = 0
        for bit in range(3):  # -1 means not known
            value, correct = parse_number(buffer, starts[GROUP + bit], stops[GROUP + bit])
            good = good and correct and (value == 1 or value == 0 or value == -1)
            if value == 1:
                flags |= 1 << bit
        if not good:
            _note(problems, examples, BAD_FLAG, first_line + line)
            continue
        same = last_id[ID_BYTES] == 1
        if same:
            for index in range(ID_BYTES):
                if buffer[starts[IMAGE] + index] != last_id[index]:
                    same = False
                    break
        if not same:
            for index in range(ID_BYTES):
                last_id[index] = buffer[starts[IMAGE] + index]
                out_ids[started, index] = last_id[index]
            last_id[ID_BYTES] = 1
            started += 1
            last_run[-1] += 1
        run, target = last_run[-1], targets[code]
        out_first[rows] = flags == 0 and target >= 0 and last_run[target] != run
        if out_first[rows]:
            last_run[target] = run
        out_run[rows], out_code[rows], out_flags[rows] = run, code, flags
        out_box[rows, 0], out_box[rows, 1], out_box[rows, 2], out_box[rows, 3] = x1, y1, x2, y2
        rows += 1
    return rows
