"""The OpenAPI document as linters and generators of clients take it."""
