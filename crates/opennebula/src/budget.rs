//! How many calls per second and at once, and whose turn it is.
