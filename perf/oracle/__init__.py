"""Are the outputs right: references, the rule, and what is proven without a device."""
