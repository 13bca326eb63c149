"""One command of hotlap a file, and the pytest plug-in."""
