"""The RRM as a service: JSON in, a value or "unscored" with its reason out, and the dialects of other trainers.

guard      host, origin, token, size, pace and room of every request
listen     sockets: a client that dribbles its headers is cut off
messages   the JSON contract (`schema.json` is its published form), strict JSON in and `{"error": one line}` out
worker     pictures (base64, or files under a root that the operator allows), encoded until they are judged, and one bounded queue
dialects   other trainers' JSON, and their pickle behind --allow-pickle on loopback only
app        the routes
"""
