"""All that follows from the tables, each computed once."""
