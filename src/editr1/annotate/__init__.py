"""The labelling page: people compare two edits, blind, by keyboard or thumb, and no answer is ever lost.

items    which two edits are compared, in which order, how often
votes    SQLite (WAL): an answer is on disk before the next pair shows
queue    who gets what next; leases, so that two people never do the same work by accident
server   the page and its few JSON routes
results  progress, pace, agreement, gold questions; answers as CSV and as the table 07_pairs; import of existing votes
"""
