"""Comparisons of reward models as one command: a recipe names cells and claims, every cell is trained and judged on the same pairs.

config.py    what a study is: cells, judging, claims
cells.py     one cell: its data, its training stage, its scores of the held-out pairs; and all of them, several at once
table.py     scores -> accuracies with intervals, paired tests, claims; `commands/experiments.py` writes them
"""
