//! Kafka adapter. I/O.
