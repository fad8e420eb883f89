"""Step scores for other people's trainers: TRL, verl, OpenRLHF, prime-rl.

Each file speaks the protocol of one trainer, as its docstring says; none of the trainers is a
dependency of prmkit, and none is imported before something of it is asked for. `scoring` makes
scores of the texts that they all give, `placing` finds the tokens at which steps end.
"""
