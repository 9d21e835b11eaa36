"""Recordings of the reference implementations, replayed: whatever sets lie under the golden roots."""
