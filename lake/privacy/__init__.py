"""Privacy: users that are forgotten, how long rows are kept, and what a log of a table may say of them."""
