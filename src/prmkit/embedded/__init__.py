"""The small world that ships: word problems with a judge, a small policy, a small PRM."""
