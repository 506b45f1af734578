//! One test binary; one promise or danger per file.

mod conformance;
mod format;
mod store_creation;
