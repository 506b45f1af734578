//! Any bytes as keys of records and of ledger rows.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ibid::testing::fuzz::keys(bytes));
