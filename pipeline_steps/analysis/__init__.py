"""What is computed from finished results for pages and figures; drawn by :mod:`pipeline_steps.report`."""
