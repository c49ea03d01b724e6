"""HTTP to model servers, whatever format they speak."""
