"""The one list of checks of annotation files (``catalogue``), and the functions by which every reader applies it."""
