"""The harness: the question (case), the answer (result), measuring, checking, comparing, reporting."""
