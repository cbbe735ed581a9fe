"""Images as instruments and archives store them: stacks, rasters with a place on earth, volumes of the body."""
