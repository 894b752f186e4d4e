"""Event streams: readers, checked tables, slices, simulators."""
