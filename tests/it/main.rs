//! One test binary; one promise or danger per file.

// With the engine: mod request_invoice;
