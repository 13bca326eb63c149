"""The harness: question (case), answer (result), measuring, checking, comparing, reporting."""
