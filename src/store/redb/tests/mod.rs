//! The file, its creation, its damage and its crashes.
