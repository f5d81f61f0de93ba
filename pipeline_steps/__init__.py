"""The steps of the recipe, one module each; the library they call is in the sub-packages."""
