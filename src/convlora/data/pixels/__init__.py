"""Image and mask files become arrays, without trusting them."""
