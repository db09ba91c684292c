"""Questions to a judge whose answers are known beforehand: sanity, stability, resistance to tricks, and to bad principles."""
