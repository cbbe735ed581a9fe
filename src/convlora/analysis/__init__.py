"""What tuning did to a segmenter: chosen experts, attention distances and linear probes, before and after."""
