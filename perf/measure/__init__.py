"""The main path: cases, races, answers, results file."""
