"""Where an agent's steps are answered.

base        what an environment is; replays and demonstrations
actions     from a step's text to the action in it
world       pure worlds as environments
crafting    a crafting game in the manner of TextCraft
tools       a small world of tools, called by JSON
calculator  exact arithmetic without eval
laws        what every environment keeps
"""
