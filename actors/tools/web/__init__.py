"""The tool that reads what is at a URL, and what it takes: guarded requests, pages, HTML."""
