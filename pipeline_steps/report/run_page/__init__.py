"""The page of a run: tables, figures and pictures of everything that is there, and a list of what is not."""
