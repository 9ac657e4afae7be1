"""The page Errors: what a model got wrong, word by word."""
