"""Who answers: neutral requests to wire calls and wire replies to neutral answers; start at protocol.py.

A provider never sleeps, retries or touches a socket. errors.py is the one table from status and body to an error class.
"""
