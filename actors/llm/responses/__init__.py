"""OpenAI's Responses API: requests, answers, and the client of servers that speak it.

Each module is imported by its users; importing polypod imports none of them.
"""
