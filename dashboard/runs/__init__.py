"""The page Runs: trainings in a table, their curves, two of them side by side."""
