"""The RRM as a service: JSON in, a value or "unscored" with its reason out, and the dialects of other trainers.

guard      host, origin, token, size, pace and room of every request
messages   the JSON contract (`schema.json` is its published form), strict JSON in and `{"error": one line}` out
pictures   base64, or files under a root that the operator allows; encoded until they are judged
worker     one bounded queue in front of the judge
dialects   other trainers' JSON
pickled    other trainers' pickle, behind --allow-pickle on loopback only
app        the routes
"""
