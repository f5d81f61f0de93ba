"""What only makes a CPU faster: other code for modules of torch and detectron2, with the same parameters.

A detector is built from the standard modules, on every device; a recipe that trains or tests on a CPU asks for these
with ``compute.fast_cpu_modules``.
"""
