"""Data sets on disk: where they lie, how they are read and checked, and how categories of one map to another's."""
