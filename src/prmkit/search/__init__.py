"""Better answers: search for solutions, guided by step scores."""
