"""What this cloud pretends, one small driver each, and what an operator would put into it."""
