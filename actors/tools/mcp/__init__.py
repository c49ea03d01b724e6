"""Tools of servers that speak the Model Context Protocol, by the official SDK over streams of ours."""
