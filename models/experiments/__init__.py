"""Experiments: a question, a control, arms, and what so many seeds say of them."""
