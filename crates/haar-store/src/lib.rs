//! Durable records under (kind, key): redb, memory, and doubles that fail.
