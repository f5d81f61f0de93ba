"""The one list of checks of annotation files (``catalogue``), and the functions that apply it.

Every reader applies the same functions to the same typed records. What they find decides by purpose: a check says
whether training, or evaluation and drawing, refuse a file in which it fails, or leave the annotation out.
``check_dataset`` lists all findings.
"""
