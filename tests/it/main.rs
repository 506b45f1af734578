//! One test binary; one promise or danger per file.

mod conformance;
