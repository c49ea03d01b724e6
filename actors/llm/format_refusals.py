"""How servers (Groq, Google) say that they take tools or a form of answers, not both; in lower case."""

_FORM = r"(?:json mode|json_object|json_schema|response[_ ]?format|response mime type|structured outputs?)"
_TOOLS = r"\b(?:tools?|functions?)(?:/function)? ?(?:call\w*)?\b"
TOOLS_OR_FORMAT = rf"{_FORM}.{{0,60}}{_TOOLS}|{_TOOLS}.{{0,60}}{_FORM}"
