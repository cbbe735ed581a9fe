"""What is wrong, or looks wrong, with data that can be used: small functions over figures of all pairs."""
