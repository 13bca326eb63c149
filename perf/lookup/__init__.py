"""From a name to the thing that it names."""
