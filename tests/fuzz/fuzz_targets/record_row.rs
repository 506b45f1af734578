//! Any bytes as the row of a record.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ibid::testing::fuzz::record_row(bytes));
