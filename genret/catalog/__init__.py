"""The catalog: images, their identifiers, captions and vectors, in a database."""
