"""The paper's rows again: one command from nothing to a table beside the quoted figures."""
