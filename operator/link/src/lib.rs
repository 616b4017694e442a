//! Mutual TLS server and client for the wire types. I/O.
