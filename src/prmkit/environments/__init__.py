"""Where an agent's steps are answered.

base        what an environment is; replays and demonstrations
actions     from a step's text to the action in it
rollout     episodes of a policy, whole ones and from any turn
playing     many episodes at once
world       pure worlds as environments
crafting    a crafting game in the manner of TextCraft
tools       a small world of tools, called by JSON
calculator  exact arithmetic without eval
gym         any environment of Gymnasium
babyai      BabyAI's levels
textworld   TextWorld's games, made here
agentgym    AgentGym's servers
openenv     OpenEnv's servers
catalogue   those that run here, by name
laws        what every environment keeps
"""
