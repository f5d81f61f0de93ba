"""Validation of LVIS- and COCO-format files: every problem is counted, nothing stops at the first one."""
