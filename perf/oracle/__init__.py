"""Are the outputs right: references, the rule, and the ladder of what is proven without a device."""
