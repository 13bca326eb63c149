"""The question (case), the answer (result), the verdict, and the words they are made of."""
