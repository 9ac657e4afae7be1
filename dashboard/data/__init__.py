"""The page Data: the corpus, its durations, its outliers, its augmented copies."""
