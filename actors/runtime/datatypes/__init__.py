"""Types at the edge of JSON: their schemas, and the way from JSON data to an instance."""
