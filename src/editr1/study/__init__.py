"""Comparisons of reward models as one command: a recipe names cells and claims, every cell is trained and judged on the same pairs.

config.py    what a study is: cells, judging, claims
cells.py     one cell: its data, its training stage, its scores of the held-out pairs
schedule.py  all cells, several at once, each in a process of its own, with the time left
table.py     scores -> accuracies with intervals, paired tests, claims; `commands/study.py` writes them
"""
