"""The rooms of editor RL (paper, section 3.3): what `stages/edit_rl.py` calls, one file a step of the algorithm.

    contexts -> rollout -> rewards -> (objectives) -> update -> ema, evaluation -> checkpoint

Nothing here knows a model or a judge: editors come in through `editors.base.FlowEditor`, judges as a function.
"""
