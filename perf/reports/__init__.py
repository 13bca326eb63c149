"""Results and verdicts as tables and in the formats of other tools."""
