"""Data sets in the layouts and annotation formats that people have; one file a format, all giving the same samples."""
