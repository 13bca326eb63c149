"""Results files of hotlap and of other tools: a file for each, which `reading` lists."""
