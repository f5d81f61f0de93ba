"""The comparison of settings over seeds as tables, sentences, figures and a page."""
