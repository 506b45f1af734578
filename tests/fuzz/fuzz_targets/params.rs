//! Any bytes as the params of a request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ibid::testing::fuzz::wire_params(bytes));
