"""`resegment alerts`: a role of its own, which reads what the ranking stage announces and tells people of it."""
