"""OpenAI's Responses: requests, answers and the client of servers that speak it.

Each module is imported by who uses it; nothing here is imported along with polypod.
"""
