"""Images and masks on disk: finding, decoding, checking, splitting and augmenting them."""
