//! A backend's memory over many statements, and what pg_steward takes of shared memory.
