//! Any bytes as a row of a ledger table.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ibid::testing::fuzz::ledger_row(bytes));
