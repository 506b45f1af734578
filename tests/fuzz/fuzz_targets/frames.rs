//! Any bytes as a payload from a peer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ibid::testing::fuzz::frames(bytes));
